// Asking the API. A token is kept for this tab alone, and sent to nobody but the daemon that served the page.

const API = '/api/v1';
const TOKEN = 'weir-token';
const PATIENCE = 8000;

class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

let token = stored('sessionStorage', TOKEN) ?? '';

// Browsers may refuse to store anything; then it lasts as long as the page.
function stored(where, name, value) {
  try {
    const store = window[where];
    if (value === undefined) return store.getItem(name);
    if (value === '') store.removeItem(name);
    else store.setItem(name, value);
  } catch { /* not here, then */ }
  return null;
}

function keepToken(text) {
  token = text.trim();
  stored('sessionStorage', TOKEN, token);
}

function headers(more) {
  return token ? { authorization: `Bearer ${token}`, ...more } : { ...more };
}

async function call(path, options = {}) {
  const answer = await fetch(API + path, {
    cache: 'no-store',
    credentials: 'same-origin',
    signal: AbortSignal.timeout(PATIENCE),
    ...options,
    headers: headers(options.headers),
  });
  const text = await answer.text();
  let body = null;
  try { body = JSON.parse(text); } catch { /* told below */ }
  if (!answer.ok) throw new Problem(answer.status, body?.detail ?? `the daemon answered ${answer.status}`);
  if (body === null) throw new Problem(answer.status, 'the answer is not understood: is something between this page and Weir?');
  return body;
}

const ask = (path) => call(path);

const order = (path, body) => call(path, {
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify(body),
  // An allowlist's refresh waits for its source.
  signal: AbortSignal.timeout(60000),
});

