// The parts of the page that tell of the host as a whole.

function tiles(view) {
  const { status } = view;
  const servers = status.services.flatMap((service) => service.servers);
  const well = servers.filter((server) => ['ok', 'idle'].includes(stateOf(server))).length;
  const down = servers.filter((server) => stateOf(server) === 'bad').length;
  const tile = (key, title, value, unit, more, kind = '', line = key) => h('div', { class: `tile ${kind}`, 'data-key': key },
    h('h3', {}, title), h('p', { class: 'value' }, value, unit ? h('small', {}, ` ${unit}`) : null), h('p', { class: 'more' }, more),
    line ? spark(view.history, line, kind) : null);
  const now = view.now;
  show(byId('tiles'),
    tile('requests', 'Requests', short(now.requests), '/s', `${plural(now.connections, 'connection')} open`),
    tile('errors', 'Errors', percent(now.errorShare), '', '5xx answers, and pages', now.errorShare > 0.01 ? 'bad' : ''),
    tile('p99', 'Slowest 1 %', millis(now.p99), '', `median ${millis(now.p50)}`),
    tile('servers', 'Servers', `${well}`, `of ${servers.length}`, down ? `${down} down` : 'none down', down ? 'bad' : '', null),
    tile('pages', 'Pages', short(now.pages), '/s', 'in the servers’ place', now.pages > 0 ? 'warn' : ''),
    tile('dropped', 'Dropped', short(now.dropped), '/s', status.gate.state === 'on' ? 'packets at the gate' : 'connections at accept'));
}

let noticed = new Set();

// Said aloud once, when it is new: seconds that count down in it would be said over and over.
function showNotices(told) {
  const keys = new Set(told.map((one) => one.dataset.key));
  const news = told.filter((one) => !noticed.has(one.dataset.key)).map((one) => one.textContent);
  if (news.length) say(news.join(' '));
  noticed = keys;
  show(byId('notices'), told);
}

function notices(view, fault) {
  const told = [];
  const tell = (key, kind, ...text) => told.push(h('p', { class: `notice ${kind}`, 'data-key': key }, dot(kind), h('span', {}, ...text)));
  if (fault) {
    tell('link', 'bad', fault.status === 401 || fault.status === 403
      ? `${fault.message}. Press “Token” above.`
      : `No answer since ${view ? lasting((Date.now() - view.asked) / 1000) : 'the page was opened'}: ${fault.message}. ${view ? 'What you see is what was last known. ' : ''}Asking again …`);
  }
  if (!view) return showNotices(told);
  const { status } = view;
  const { configuration } = status;
  if (status.draining) tell('draining', 'warn', status.host_drain ? `This host is drained by ${status.host_drain.who ?? status.host_drain.by}${status.host_drain.why ? `: ${status.host_drain.why}` : ''}. ` : 'This host ends. ', status.host_drain ? button('undrain-host', 'Undrain this host') : null);
  if (!configuration.last_reload_ok) tell('reload', 'bad', `The last configuration was refused, what ran before runs on: ${configuration.last_reload_error ?? 'no reason was told'}`);
  if (configuration.trial) tell('trial', 'warn', `${configuration.trial.name} is on trial, and is taken back in ${lasting(configuration.trial.seconds_left)} unless somebody keeps it. `, button('confirm', 'Keep it', {}, 'strong'), ' ', button('revert', 'Take it back'));
  if (status.gate.state === 'unavailable') tell('gate', 'warn', `The kernel does not enforce the lists, Weir does so at accept: ${status.gate.why}`);
  for (const name of status.gate.absent ?? []) tell(`absent ${name}`, 'warn', `The interface ${name} is gone; it is guarded again when it is back.`);
  fleetNotices(status, tell);
  const dead = status.services.filter((service) => !service.can_answer);
  if (dead.length) tell('dead', 'bad', `No server answers for ${dead.slice(0, 5).map((one) => one.name).join(', ')}${dead.length > 5 ? ` and ${dead.length - 5} more` : ''}.`);
  const held = status.maintenance.filter((one) => one.on);
  if (held.length) tell('maintenance', 'warn', `${plural(held.length, 'window')} of maintenance ${held.length === 1 ? 'holds' : 'hold'}: visitors of ${held.map(about).join('; ')} get the page.`);
  for (const entrypoint of status.entrypoints.filter((one) => one.syn_flood)) tell(`flood ${entrypoint.name}`, 'warn', `A flood of SYNs at ${entrypoint.name}, for ${lasting(entrypoint.syn_flood.seconds)}: the gate answers with cookies.`);
  status.warnings.forEach((text, at) => tell(`warning ${at}`, 'warn', named(text)));
  if (status.access_log_dropped) tell('log', 'warn', `${plural(status.access_log_dropped, 'line')} of the access log ${status.access_log_dropped === 1 ? 'was' : 'were'} lost: where they go could not keep up.`);
  return showNotices(told);
}

function standing(view) {
  const { status } = view;
  const bad = status.services.some((service) => !service.can_answer) || !status.configuration.last_reload_ok;
  const text = status.draining ? 'draining' : bad ? 'needs a look' : 'well';
  const kind = status.draining ? 'warn' : bad ? 'bad' : 'ok';
  const place = byId('standing');
  place.className = `standing ${kind}`;
  show(place, dot(kind), text);
  show(byId('about'), `version ${status.version} · generation ${status.generation} · up ${lasting(ago(status.started))}`);
  document.title = `${bad || status.draining ? '● ' : ''}Weir: ${text}`;
}

const table = (heads, rows, empty) => (rows.length
  ? h('div', { class: 'scroll' }, h('table', {}, h('thead', {}, h('tr', {}, heads.map((head) => (typeof head === 'string' ? h('th', { scope: 'col' }, head) : head)))), h('tbody', {}, rows)))
  : h('p', { class: 'empty' }, empty));
const right = (text) => h('th', { scope: 'col', class: 'num' }, text);
// Where there is no room for a head, the figure brings its name along.
const number = (text, name) => h('td', { class: 'num', 'data-name': name }, text);
const barOf = (share) => h('td', { class: 'share' }, h('svg', { viewBox: '0 0 100 8', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, h('rect', { class: 'track', width: 100, height: 8, rx: 2 }), h('rect', { class: 'fill', width: (100 * Math.min(1, share)).toFixed(1), height: 8, rx: 2 })));

function drops(view) {
  const rows = [...view.lost].sort((one, other) => other.rate - one.rate || other.all - one.all).slice(0, 14);
  const most = Math.max(...rows.map((row) => row.rate), 1e-9);
  const sources = view.drops?.sources ?? [];
  show(byId('drops'),
    table(['where, why', right('per second'), h('th', { 'aria-hidden': 'true' }), right('since the start')], rows.map((row) => h('tr', { 'data-key': row.key },
      h('td', {}, h('b', {}, words(row.reason)), ` ${row.place}`), number(short(row.rate)), barOf(row.rate / most), number(short(row.all)))), 'Nothing was dropped or refused.'),
    h('h3', {}, 'By source'),
    table(['network', right('packets/s'), h('th', { 'aria-hidden': 'true' }), 'where, why'], sources.slice(0, 8).map((source) => h('tr', { 'data-key': `${source.prefix} ${source.entrypoint}` },
      h('td', { class: 'mono' }, source.prefix ?? 'unreadable'), number(short(source.packets_per_second)), barOf(source.share), h('td', {}, `${words(source.reason)}, ${source.entrypoint}`))),
    view.drops?.why ?? (view.status.gate.state === 'on' ? 'Nobody’s packets are dropped now.' : 'Only the gate in the kernel tells where drops come from.')));
  show(byId('drops-hint'), view.now.dropped > 0 ? `${short(view.now.dropped)}/s now` : '');
}

function lists(view) {
  show(byId('lists'), table(['list', right('prefixes'), 'age', ''], view.status.allowlists.map((list) => {
    const { fetched } = list;
    const late = fetched && fetched.refresh_seconds && fetched.age_seconds > 3 * fetched.refresh_seconds;
    const kind = !fetched ? 'idle' : fetched.last_error ? 'bad' : late ? 'warn' : 'ok';
    return h('tr', { 'data-key': list.name },
      h('td', {}, dot(kind), h('b', {}, list.name), h('span', { class: 'line' }, list.entrypoints.length ? `at ${list.entrypoints.join(', ')}` : 'used nowhere')),
      number(`${counted.format(list.prefixes_v4)} + ${counted.format(list.prefixes_v6)}`),
      h('td', {}, fetched ? (fetched.age_seconds === null ? fetched.in_force : lasting(fetched.age_seconds)) : 'as configured',
        fetched?.last_error ? h('span', { class: 'line bad' }, fetched.last_error) : null),
      h('td', { class: 'acts' }, fetched ? button('refresh', 'Fetch now', { list: list.name }) : null));
  }), 'There are no allowlists: every entrypoint is open to everybody.'));
}

function certificates(view) {
  const rows = [...view.status.certificates].sort((one, other) => one.not_after - other.not_after).map((one) => {
    const left = one.not_after - serverNow() / 1000;
    const kind = { valid: 'ok', expires_soon: 'warn', expired: 'bad', not_yet_valid: 'bad', ordered: 'idle' }[one.state] ?? 'idle';
    const wrong = one.stale ?? one.order?.error;
    return h('tr', { 'data-key': `${one.entrypoint} ${one.file} ${one.names[0]}` },
      h('td', {}, dot(kind), h('b', {}, one.names[0] ?? 'nameless'), one.names.length > 1 ? ` +${one.names.length - 1}` : '', h('span', { class: 'line' }, `${one.entrypoint}, ${one.source}`), wrong ? h('span', { class: 'line bad' }, wrong) : null),
      number(one.state === 'ordered' ? 'ordered' : left < 0 ? `expired ${lasting(-left)} ago` : `in ${lasting(left)}`),
      number(one.not_after ? new Date(one.not_after * 1000).toLocaleDateString() : ''));
  });
  show(byId('certificates'), table(['name', right('expires'), right('on')], rows, 'No entrypoint speaks TLS.'));
}

const about = (window_) => ([...window_.routes, ...window_.hosts].join(', ') || 'everything');
const underMaintenance = (view, route) => view.status.maintenance.some((one) => one.on && (
  (!one.routes.length && !one.hosts.length) || one.routes.includes(route.name) || (one.hosts.length && route.hosts.length && route.hosts.every((host) => one.hosts.includes(host)))));

function maintenance(view) {
  const rows = view.status.maintenance.map((one) => h('tr', { 'data-key': `${one.id} ${about(one)} ${one.from}` },
    h('td', {}, dot(one.on ? 'warn' : 'idle'), h('b', {}, about(one)), h('span', { class: 'line' }, one.why || `page ${one.page}`)),
    h('td', {}, one.on ? 'holds now' : one.from ? `from ${new Date(one.from).toLocaleString([], { hour12: false })}` : '', one.until ? h('span', { class: 'line' }, `until ${new Date(one.until).toLocaleString([], { hour12: false })}`) : one.weekly ? h('span', { class: 'line' }, one.weekly) : null),
    h('td', { class: 'acts' }, one.id !== null && one.id !== undefined ? button('maintenance-end', 'End', { id: one.id, what: about(one) }) : 'configured')));
  show(byId('maintenance'), table(['what', 'when', ''], rows, 'No page stands in the servers’ place.'), h('p', { class: 'acts' }, button('maintenance', 'Begin maintenance …')));
}

function configuration(view) {
  const { configuration: one, gate } = view.status;
  const pair = (key, name, ...value) => [h('dt', { 'data-key': `${key} name` }, name), h('dd', { 'data-key': key }, ...value)];
  show(byId('configuration'), h('dl', {},
    pair('file', 'file', h('span', { class: 'mono' }, one.path ?? 'the embedded default')),
    pair('generation', 'generation', String(view.status.generation)),
    pair('reload', 'last reload', one.last_reload_ok ? tag('ok', 'taken over') : tag('bad', 'refused'), ` ${lasting(ago(one.last_reload))} ago`),
    pair('gate', 'gate', gate.state === 'on' ? gate.interfaces.map((where) => h('span', { class: 'line' }, `${where.name}: ${where.hook}`, h('small', {}, ` ${where.why}`))) : gate.state === 'unavailable' ? tag('warn', 'missing') : 'not asked for'),
    pair('watch', 'servers watched by', view.status.server_watch.state === 'on' ? 'probes, traffic and the kernel' : 'probes and traffic'),
    pair('workers', 'connections by worker', view.status.workers.join(' · ')),
    pair('host', 'this host', view.status.host_drain ? 'drained ' : view.status.draining ? 'ends' : 'takes traffic ', view.status.host_drain ? button('undrain-host', 'Undrain') : button('drain-host', 'Drain this host …'))));
}

