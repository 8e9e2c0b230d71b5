// Orders: what is about to happen is said first, and how the command line does the same. Nothing is done without a second press.

const dialog = () => byId('dialog');
let pending = null;

// `what` is one of these; each gives title, sentence, command, path and body.
const ORDERS = {
  drain: ({ server }) => ({ title: `Drain ${server}?`, text: 'It gets no new requests; what it has under way may end. It stays so until somebody undrains it, also over restarts.', command: `weir drain ${server}`, why: true, force: 'Also if no server is left', path: '/drain', body: { servers: [server], who: 'dashboard' }, done: `${server} is drained` }),
  undrain: ({ server }) => ({ title: `Undrain ${server}?`, text: 'It gets new requests again, as soon as it is up.', command: `weir undrain ${server}`, path: '/undrain', body: { servers: [server] }, done: `${server} is undrained` }),
  'drain-host': () => ({ title: 'Drain this host?', text: 'From now on /ping fails, so that whoever sends traffic here sends it elsewhere. Open connections go on.', command: 'weir drain --host', why: true, path: '/drain', body: { host: true, who: 'dashboard' }, done: 'this host is drained' }),
  'undrain-host': () => ({ title: 'Undrain this host?', text: '/ping answers again.', command: 'weir undrain --host', path: '/undrain', body: { host: true }, done: 'this host is undrained' }),
  refresh: ({ list }) => ({ title: `Fetch ${list} now?`, text: 'Its source is asked. A list that shrinks too much, or that would lock you out, is refused as always.', command: `weir allowlist refresh ${list}`, path: '/allowlists/refresh', body: { list }, done: `${list} was fetched` }),
  maintenance: () => ({ title: 'Begin maintenance?', text: 'Visitors get the maintenance page with status 503, until somebody ends it. Servers are left alone.', command: 'weir maintenance on', why: true, route: true, path: '/maintenance/begin', body: {}, done: 'maintenance has begun' }),
  'maintenance-end': ({ id, what }) => ({ title: 'End maintenance?', text: `Visitors of ${what} get to the servers again.`, command: 'weir maintenance off', path: '/maintenance/end', body: { id: Number(id) }, done: 'maintenance has ended' }),
  weights: ({ split }) => ({ title: `Weights of ${split}`, text: 'Requests follow at once; visitors with a cookie stay where they are. Kept over reloads and restarts.', command: `weir split ${split} …`, weights: split, path: '/splits/set', body: { name: split }, done: `${split} has new weights` }),
  'weights-reset': ({ split }) => ({ title: `Back to the configured weights of ${split}?`, text: 'Requests follow at once.', command: `weir split ${split} --reset`, path: '/splits/set', body: { name: split, reset: true }, done: `${split} is as configured` }),
  confirm: () => ({ title: 'Keep the configuration that is on trial?', text: 'It stays.', command: 'weir confirm', path: '/confirm', body: {}, done: 'the configuration stays' }),
  revert: () => ({ title: 'Take the configuration back?', text: 'What ran before it runs again.', command: 'weir revert', path: '/revert', body: {}, done: 'the configuration was taken back' }),
};

function field(name, text, more = {}) {
  return h('label', { class: 'field' }, h('span', {}, text), h('input', { name, autocomplete: 'off', ...more }));
}

function openOrder(what, data) {
  pending = ORDERS[what](data);
  const split = pending.weights && life.view?.status.splits.find((one) => one.name === pending.weights);
  const routes = life.view?.routes.routes ?? [];
  openDialog(h('form', { method: 'dialog' },
    h('h2', { id: 'dialog-title' }, pending.title), h('p', {}, pending.text),
    pending.route ? h('label', { class: 'field' }, h('span', {}, 'Of'), h('select', { name: 'route' }, h('option', { value: '' }, 'everything'), routes.map((route) => h('option', { value: route.name }, `route ${route.name}`)))) : null,
    split ? split.variants.map((one) => field(`weight ${one.name}`, one.name, { type: 'number', min: 0, max: 1000000, step: 1, required: true, value: one.weight })) : null,
    pending.why ? field('why', 'Why (others see it)', { maxlength: 200 }) : null,
    pending.force ? h('label', { class: 'check' }, h('input', { type: 'checkbox', name: 'force' }), ` ${pending.force}`) : null,
    h('p', { class: 'command' }, 'On the host: ', h('code', {}, pending.command)),
    h('div', { class: 'refused', id: 'refused', role: 'alert' }),
    h('div', { class: 'acts' }, h('button', { type: 'button', 'data-close': true }, 'Cancel'), h('button', { type: 'submit', class: 'strong', id: 'go' }, 'Do it'))));
}

function openToken(why) {
  pending = { token: true };
  openDialog(h('form', { method: 'dialog' }, h('h2', { id: 'dialog-title' }, 'Token of the admin interface'),
    why ? h('p', { class: 'refused' }, why) : null,
    h('p', {}, 'It is in the file that ', h('code', {}, '[admin] token_file'), ' names on the host, and worth as much as root there. This tab keeps it until it is closed, and nowhere else.'),
    field('token', 'Token', { type: 'password', autocomplete: 'off' }),
    h('div', { class: 'acts' }, h('button', { type: 'button', 'data-close': true }, 'Cancel'), token ? h('button', { type: 'button', 'data-forget': true }, 'Forget it') : null, h('button', { type: 'submit', class: 'strong', id: 'go' }, 'Use it'))));
}

function openDialog(form) {
  const box = dialog();
  box.replaceChildren(form);
  if (!box.open) box.showModal();
  (form.querySelector('input, select') ?? form.querySelector('#go')).focus();
}

function bodyOf(order_, form) {
  const body = { ...order_.body };
  const given = new FormData(form);
  if (given.get('why')) body.why = given.get('why');
  if (given.get('force')) body.force = true;
  if (given.get('route')) body.routes = [given.get('route')];
  if (order_.weights) body.weights = Object.fromEntries([...given].filter(([name]) => name.startsWith('weight ')).map(([name, value]) => [name.slice(7), Number(value)]));
  return body;
}

async function submitted(event) {
  event.preventDefault();
  const form = event.target;
  const typed = new FormData(form).get('token');
  if (typed) keepToken(typed);
  if (pending.token) { dialog().close(); return life.now(); }
  const go = byId('go');
  go.disabled = true;
  try {
    await order(pending.path, bodyOf(pending, form));
    say(pending.done);
    dialog().close();
    life.now();
  } catch (fault) {
    refused(fault);
  } finally {
    go.disabled = false;
  }
}

function refused(fault) {
  const needs = fault.status === 401 || fault.status === 403;
  if (fault.status === 401) keepToken('');
  show(byId('refused'), h('p', {}, needs
    ? `Not done: ${token ? fault.message : 'over this address orders take the token of the admin interface'}. Give it here; where none is configured, set [admin] token_file, or use the command above on the host.`
    : `Not done: ${fault.message}`),
    needs ? field('token', 'Token', { type: 'password' }) : null);
  byId('refused').querySelector('input')?.focus();
}

function say(text) { byId('said').textContent = text; }

function listenToOrders() {
  document.addEventListener('click', (event) => {
    const pressed = event.target.closest('[data-order]');
    if (pressed) { event.preventDefault(); return openOrder(pressed.dataset.order, { ...pressed.dataset }); }
    if (event.target.closest('[data-close]')) return dialog().close();
    if (event.target.closest('[data-forget]')) { keepToken(''); dialog().close(); return life.now(); }
    return undefined;
  });
  dialog().addEventListener('submit', submitted);
  byId('token').addEventListener('click', () => openToken());
}

