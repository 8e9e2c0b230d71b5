// Rates out of counters, quantiles out of buckets, and figures in words. Nothing here touches the page.

// The upper edges of a service's waits, in milliseconds.
const EDGES = [0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000];

const KEPT_MS = 15 * 60 * 1000;

// A counter that is smaller than before began anew in between.
const since = (before, now) => (before === undefined || before > now ? now : now - before);
const sum = (values) => values.reduce((all, one) => all + one, 0);

// What a share `q` of the answers doesn't exceed, between the edges of its bucket.
function quantile(buckets, q) {
  const all = sum(buckets);
  if (!all) return null;
  const wanted = all * q;
  let below = 0;
  for (let at = 0; at < buckets.length; at += 1) {
    if (below + buckets[at] >= wanted) {
      if (at >= EDGES.length) return EDGES.at(-1);
      const low = at ? EDGES[at - 1] : 0;
      return low + (EDGES[at] - low) * ((wanted - below) / buckets[at]);
    }
    below += buckets[at];
  }
  return EDGES.at(-1);
}

// Values over the last 15 minutes: one list of moments for all, one list for each name.
class History {
  constructor() { this.times = []; this.series = new Map(); }

  add(time, values) {
    const size = this.times.push(time);
    for (const [name, value] of Object.entries(values)) {
      let list = this.series.get(name);
      // One that comes later has nothing before.
      if (!list) this.series.set(name, list = []);
      while (list.length < size - 1) list.push(null);
      list.push(value);
    }
    let old = 0;
    while (this.times[old] < time - KEPT_MS) old += 1;
    if (old > 20) {
      this.times.splice(0, old);
      for (const [name, list] of this.series) {
        list.splice(0, old);
        if (!list.some((value) => value !== null)) this.series.delete(name);
      }
    }
  }

  of(name) { return this.series.get(name) ?? []; }
}

const counted = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return '–';
  if (value >= 1e9) return `${(value / 1e9).toFixed(value >= 1e10 ? 0 : 1)}G`;
  if (value >= 1e6) return `${(value / 1e6).toFixed(value >= 1e7 ? 0 : 1)}M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(value >= 1e5 ? 0 : 1)}k`;
  if (value >= 100) return counted.format(value);
  if (value >= 10) return value.toFixed(value % 1 ? 1 : 0);
  if (value === 0) return '0';
  return value < 0.05 ? '<0.1' : value.toFixed(1);
}

const percent = (share) => (share === null || share === undefined ? '–'
  : share === 0 ? '0 %' : share < 0.001 ? '<0.1 %' : `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`);

function millis(value) {
  if (value === null || value === undefined) return '–';
  if (value === 0) return '0 ms';
  if (value >= 1000) return `${(value / 1000).toFixed(value >= 10000 ? 0 : 1)} s`;
  return `${value >= 10 ? value.toFixed(0) : value.toFixed(1)} ms`;
}

function lasting(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return '–';
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
  return whole < 86400 * 3 ? `${Math.floor(whole / 86400)} d ${Math.floor(whole % 86400 / 3600)} h` : `${Math.floor(whole / 86400)} d`;
}

// The daemon's clock, as of its last answer: a laptop's may be wrong.
let clockOffset = 0;
const serverNow = () => Date.now() + clockOffset;
const ago = (text) => (serverNow() - Date.parse(text)) / 1000;
const clock = (text) => new Date(text).toLocaleTimeString([], { hour12: false });
const words = (name) => name.replaceAll('_', ' ');
const plural = (count, one, more = `${one}s`) => `${counted.format(count)} ${count === 1 ? one : more}`;

