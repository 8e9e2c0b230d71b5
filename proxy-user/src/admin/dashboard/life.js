// The life of the page: every two seconds it asks, reckons, and shows. When nobody looks, it rests.

const EVERY = 2000;
const WINDOW = 3;
const DROPS_EVERY = 5000;

const life = { view: null, history: new History(), moments: [], fault: null, drops: null, dropsAsked: 0, timer: 0, busy: false };

// Every counter by its name, so that a rate is the same sum everywhere.
function counters({ status, routes, kernel }) {
  const all = {};
  const lost = [];
  const lose = (key, place, reason, value) => { all[key] = value; if (value) lost.push({ key, place, reason, all: value }); };
  for (const one of status.entrypoints) {
    const name = `e:${one.name}`;
    all[`${name}:requests`] = one.requests;
    lose(`${name}:not_listed`, `at accept, ${one.name}`, 'not_listed', one.not_listed);
    lose(`${name}:blocked`, `at accept, ${one.name}`, 'blocked', one.blocked);
    lose(`${name}:handshake`, one.name, 'tls_handshake_failed', one.handshake_failures);
    for (const [reason, count] of Object.entries(one.refused)) lose(`${name}:refused:${reason}`, one.name, reason, count);
    for (const [reason, count] of Object.entries(one.not_carried ?? {})) lose(`${name}:not_carried:${reason}`, one.name, reason, count);
    for (const [reason, count] of Object.entries(one.pages)) all[`${name}:pages:${reason}`] = count;
  }
  for (const one of kernel?.entrypoints ?? []) {
    all[`g:${one.name}:passed`] = one.passed.packets;
    for (const [reason, tally] of Object.entries(one.dropped)) lose(`g:${one.name}:dropped:${reason}`, `gate, ${one.name}`, reason, tally.packets);
    for (const [reason, tally] of Object.entries(one.would_drop)) lose(`g:${one.name}:would:${reason}`, `shadow, ${one.name}`, `would ${reason}`, tally.packets);
  }
  for (const one of routes.routes) all[`r:${one.name}`] = one.requests;
  for (const one of status.services) {
    for (const what of ['requests', 'retries', 'pages', 'errors']) all[`s:${one.name}:${what}`] = one[what];
    // A connection that is carried untouched is one piece of work, as a request is.
    all[`s:${one.name}:requests`] += sum(one.servers.map((server) => server.carrying?.connections ?? 0));
    one.waits.buckets.forEach((count, at) => { all[`w:${one.name}:${at}`] = count; });
    for (const server of one.servers) {
      all[`v:${one.name}/${server.address}:requests`] = server.requests + (server.carrying?.connections ?? 0);
      all[`v:${one.name}/${server.address}:failures`] = server.failures + (server.carrying?.failures ?? 0);
    }
  }
  for (const one of status.forwarding?.services ?? []) {
    all[`k:${one.service}:opened`] = one.opened;
    all[`k:${one.service}:bytes`] = one.bytes_sent + one.bytes_received;
    for (const [reason, count] of Object.entries(one.stopped)) lose(`k:${one.service}:stopped:${reason}`, `kernel, ${one.service}`, reason, count);
  }
  return { all, lost };
}

function viewOf(answers, time) {
  const { all, lost } = counters(answers);
  life.moments.push({ time, all });
  life.moments = life.moments.slice(-WINDOW - 1);
  const before = life.moments[0];
  const seconds = (time - before.time) / 1000;
  const gained = (key) => (seconds > 0 && all[key] !== undefined ? since(before.all[key], all[key]) : 0);
  // What has appeared in between has not happened in between.
  const rate = (key) => (seconds > 0 && before.all[key] !== undefined ? gained(key) / seconds : 0);
  const { status } = answers;
  const buckets = (service) => service.waits.buckets.map((_, at) => (before.all[`w:${service.name}:${at}`] === undefined ? 0 : gained(`w:${service.name}:${at}`)));
  const quantiles = (counts) => ({ p50: quantile(counts, 0.5), p99: quantile(counts, 0.99) });
  const plain = status.services.filter((service) => !service.made_of?.length);
  const latencies = new Map(plain.map((service) => [service.name, quantiles(buckets(service))]));
  const total = (prefix, test = () => true) => sum(Object.keys(all).filter((key) => key.startsWith(prefix) && test(key)).map(rate));
  const requests = total('e:', (key) => key.endsWith(':requests'));
  const pages = total('e:', (key) => key.includes(':pages:'));
  const failed = (name) => rate(`s:${name}:errors`) + rate(`s:${name}:pages`);
  const errorShare = (name) => { const base = rate(`s:${name}:requests`); return base > 0 ? Math.min(1, failed(name) / base) : null; };
  const asked = sum(plain.map((service) => rate(`s:${service.name}:requests`)));
  const whole = quantiles(plain.map(buckets).reduce((one, other) => one.map((count, at) => count + (other[at] ?? 0)), Array(EDGES.length + 1).fill(0)));
  const droppedRate = total('g:', (key) => key.includes(':dropped:'));
  const turnedAway = total('e:', (key) => key.endsWith(':not_listed') || key.endsWith(':blocked'));
  const shares = new Map();
  for (const split of status.splits) {
    const weights = sum(split.variants.map((one) => one.weight));
    for (const one of split.variants) if (weights) shares.set(one.name, `${Math.round(one.weight / weights * 100)} % of ${split.name}`);
  }
  return {
    ...answers, time, rate, latency: (name) => latencies.get(name), errorShare, shares, history: life.history, matches, drops: life.drops, droppedRate,
    asked: Date.now(), passedRate: total('g:', (key) => key.endsWith(':passed')),
    lost: lost.map((one) => ({ ...one, rate: rate(one.key) })),
    now: {
      ...whole, requests, pages, connections: sum(status.entrypoints.map((one) => one.connections)),
      dropped: status.gate.state === 'on' ? droppedRate : turnedAway,
      errorShare: asked > 0 ? Math.min(1, sum(plain.map((service) => failed(service.name))) / asked) : null,
    },
  };
}

function remember(view) {
  // The first answer has nothing to compare with.
  if (life.moments.length < 2) return;
  const values = { requests: view.now.requests, errors: view.now.errorShare, p99: view.now.p99, pages: view.now.pages, dropped: view.now.dropped };
  for (const service of view.status.services) {
    const key = `s:${service.name}`;
    const { p50 = null, p99 = null } = view.latency(service.name) ?? {};
    Object.assign(values, { [`${key}:requests`]: view.rate(`${key}:requests`), [`${key}:errors`]: view.rate(`${key}:errors`), [`${key}:pages`]: view.rate(`${key}:pages`), [`${key}:p50`]: p50, [`${key}:p99`]: p99 });
  }
  for (const split of view.status.splits) {
    for (const one of split.variants) Object.assign(values, { [`x:${split.name}/${one.name}:p99`]: one.last_minute.latency_p99_ms, [`x:${split.name}/${one.name}:errors`]: one.last_minute.error_ratio });
  }
  life.history.add(view.time, values);
}

function matches(service) {
  const wanted = byId('search').value.trim().toLowerCase();
  if (byId('troubled').checked && troubleOf(service) === 'ok') return false;
  const text = [service.name, ...service.servers.flatMap((server) => [server.address, server.name ?? '', server.status])].join(' ').toLowerCase();
  return wanted.split(/\s+/).every((word) => text.includes(word));
}

function showAll() {
  const { view, fault } = life;
  notices(view, fault);
  document.body.classList.toggle('lost', Boolean(fault));
  const link = byId('link');
  link.textContent = fault ? 'not connected' : view ? 'live' : 'connecting';
  link.className = `link ${fault ? 'bad' : 'ok'}`;
  if (!view || fault) return;
  standing(view);
  tiles(view);
  drawWay();
  serviceList(view);
  carriedByKernel(view);
  fleetCard(view);
  drops(view);
  lists(view);
  certificates(view);
  maintenance(view);
  configuration(view);
  byId('main').setAttribute('aria-busy', 'false');
}

function drawWay() {
  const place = byId('picture');
  if (life.view && place.clientWidth) show(place, drawPicture(life.view, matches, Math.floor(place.clientWidth)));
}

async function look() {
  if (life.busy) return;
  life.busy = true;
  try {
    const began = Date.now();
    const [status, routes] = await Promise.all([ask('/status'), ask('/routes')]);
    const kernel = status.gate.state === 'on' ? await ask('/kernel').catch(() => null) : null;
    life.fault = null;
    // The kernel's document says when it was read; where there is none, the clocks are taken to agree.
    if (kernel) clockOffset = Date.parse(kernel.at) - Date.now();
    life.view = viewOf({ status, routes, kernel }, (began + Date.now()) / 2);
    remember(life.view);
    listen();
    askFleet();
  } catch (fault) {
    life.fault = fault instanceof Problem ? fault : { message: fault.name === 'TimeoutError' ? 'the daemon takes too long to answer' : 'the daemon can’t be reached' };
  } finally {
    life.busy = false;
  }
  showAll();
}

// Where drops come from is asked only while there are any: for that the daemon listens to the gate.
async function listen() {
  if (Date.now() - life.dropsAsked < DROPS_EVERY) return;
  life.dropsAsked = Date.now();
  life.drops = life.view.droppedRate > 0 ? await ask('/drops').catch(() => null) : null;
}

life.now = () => {
  clearTimeout(life.timer);
  if (document.hidden) return;
  look().finally(() => { clearTimeout(life.timer); life.timer = setTimeout(life.now, EVERY); });
};

const THEMES = ['auto', 'light', 'dark'];

function wear(theme) {
  if (theme === 'auto') document.documentElement.removeAttribute('data-theme');
  else document.documentElement.setAttribute('data-theme', theme);
  byId('theme').textContent = `◐ ${theme}`;
  byId('theme').setAttribute('aria-label', `Theme: ${theme}`);
}

function begin() {
  let theme = stored('localStorage', 'weir-theme') ?? 'auto';
  wear(THEMES.includes(theme) ? theme : 'auto');
  byId('theme').addEventListener('click', () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    stored('localStorage', 'weir-theme', theme);
    wear(theme);
  });
  const searched = () => { if (life.view) { serviceList(life.view); drawWay(); } };
  byId('search').addEventListener('input', searched);
  byId('troubled').addEventListener('change', searched);
  byId('service-list').addEventListener('toggle', ({ target }) => {
    const { service } = target.dataset;
    if (!service || !life.view) return;
    if ((opened.get(service) ?? null) !== target.open) { opened.set(service, target.open); serviceList(life.view); }
  }, true);
  document.addEventListener('visibilitychange', () => { if (!document.hidden) life.now(); });
  new ResizeObserver(searched).observe(byId('picture'));
  listenToOrders();
  life.now();
  follow();
}

begin();
