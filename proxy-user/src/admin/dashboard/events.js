// What happened lately, live. A stream by fetch and not by EventSource, which can't send a token; where streams don't get through,
// what is new is asked for every few seconds.

const KEPT_EVENTS = 200;
const events = { list: [], last: 0, live: false, tries: 0 };

function took(more) {
  for (const event of more) {
    if (event.id === undefined || events.list.some((known) => known.id === event.id)) continue;
    events.list.push(event);
    events.last = event.id;
    // What is bad is said aloud to those who can't see it.
    if (events.live && (event.level === 'error' || event.kind === 'server_down' || event.kind === 'service_down')) say(event.message);
  }
  events.list = events.list.slice(-KEPT_EVENTS);
  showEvents();
}

// Names stand between backticks.
const named = (text) => text.split('`').map((part, at) => (at % 2 ? h('b', {}, part) : part));

const kindOf = (event) => ({ error: 'bad', warning: 'warn' }[event.level]
  ?? (/(up|recovered|closed|readmitted|confirmed)$/.test(event.kind) ? 'ok' : 'idle'));

function showEvents() {
  byId('events-hint').textContent = events.live ? 'live' : 'every few seconds';
  const today = new Date(serverNow()).toDateString();
  show(byId('events'), [...events.list].reverse().slice(0, 80).map((event) => {
    const at = new Date(event.at);
    return h('li', { 'data-key': event.id }, dot(kindOf(event)),
      h('time', { datetime: event.at, title: at.toLocaleString([], { hour12: false }) }, at.toDateString() === today ? clock(event.at) : at.toLocaleDateString()),
      h('span', {}, named(event.message)));
  }), events.list.length ? null : h('li', { class: 'empty' }, 'Nothing has happened yet.'));
}

async function poll() {
  const { events: more, last } = await ask(`/events?after=${events.last}`);
  took(more);
  events.last = Math.max(events.last, last);
}

// Yields each event of a stream, until it ends.
async function* streamed(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split('\n\n');
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split('\n').filter((text) => text.startsWith('data:')).map((text) => text.slice(5)).join('\n');
      if (data) yield JSON.parse(data);
    }
  }
}

async function follow() {
  const pause = (seconds) => new Promise((resolve) => { setTimeout(resolve, seconds * 1000); });
  for (;;) {
    try {
      if (document.hidden) { await pause(2); continue; }
      await poll();
      const stop = new AbortController();
      const leave = () => document.hidden && stop.abort();
      document.addEventListener('visibilitychange', leave);
      try {
        const answer = await fetch(`${API}/events?after=${events.last}`, { headers: headers({ accept: 'text/event-stream' }), cache: 'no-store', signal: stop.signal });
        if (answer.ok && answer.body) {
          events.live = true;
          events.tries = 0;
          showEvents();
          for await (const event of streamed(answer)) took([event]);
        }
      } finally {
        document.removeEventListener('visibilitychange', leave);
      }
    } catch { /* the page says so already */ }
    events.live = false;
    events.tries += 1;
    await pause(Math.min(10, 1 + events.tries));
  }
}

