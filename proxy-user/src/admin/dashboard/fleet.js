// This host's fleet, as its store knows it: there only where this host is in one. The store is asked less often than the daemon.

const FLEET_EVERY = 10000;
const fleet = { asked: 0, answer: null };

async function askFleet() {
  if (!life.view?.status.fleet || Date.now() - fleet.asked < FLEET_EVERY) return;
  fleet.asked = Date.now();
  // What was known before stays until there is an answer.
  fleet.answer = await ask('/fleet').catch(() => null) ?? fleet.answer;
}

const takenBack = (halted) => `generation ${halted.generation} was taken back by ${halted.by}: ${halted.why}`;

const runs = (host) => (host.generation === host.wanted ? `${host.generation}` : `${host.generation ?? 'nothing'}, should ${host.wanted}`);

// In the words of `weir fleet status`.
function healthOfHost(host) {
  if (!host.there) return ['bad', `gone, last heard ${lasting(ago(host.at))} ago`];
  if (host.draining) return ['warn', 'draining'];
  return host.ready ? ['ok', 'ready'] : ['bad', 'not ready'];
}

function fleetNotices(status, tell) {
  const here = status.fleet;
  if (!here) return;
  if (here.away) tell('fleet away', 'warn', `The fleet’s store is away, what ran runs on: ${here.away}`);
  if (here.rejected && here.rejected.generation === here.wanted) tell('fleet rejected', 'bad', `This host can’t run generation ${here.rejected.generation} of the fleet: ${here.rejected.why}`);
}

function fleetCard(view) {
  const here = view.status.fleet;
  byId('fleet-card').hidden = !here;
  if (!here) return;
  const known = fleet.answer?.fleet;
  const gone = known ? known.hosts.filter((host) => !host.there).length : here.hosts_gone ?? 0;
  const there = known ? known.hosts.length - gone : here.hosts;
  const count = there === null || there === undefined ? '' : `, ${plural(there, 'host')}${gone ? `, ${gone} gone` : ''}`;
  byId('fleet-hint').textContent = `generation ${here.known ?? 'none'}${count}; this is ${here.host}${here.endpoint ? `, store at ${here.endpoint}` : ''}`;
  const rows = (known?.hosts ?? []).map((host) => {
    const [kind, text] = healthOfHost(host);
    const share = host.requests ? host.failed / host.requests : null;
    return h('tr', { 'data-key': host.name, 'data-host': host.name },
      h('td', {}, dot(kind), h('b', {}, host.name), host.name === here.host ? h('span', { class: 'for' }, ' this host') : null,
        host.rejected ? h('span', { class: 'line bad' }, `could not run generation ${host.rejected.generation}: ${host.rejected.why}`) : null),
      h('td', {}, host.generation === host.wanted ? runs(host) : tag('warn', runs(host)), h('span', { class: 'line' }, host.since ? `for ${lasting(ago(host.since))}` : '')),
      h('td', {}, kind === 'ok' ? text : tag(kind, text)),
      number(`${host.servers - host.servers_down}/${host.servers}`), number(counted.format(host.requests)), number(percent(share)), number(counted.format(host.drops)),
      h('td', {}, host.version));
  });
  const halted = known ? known.halted : here.halted;
  const some = known?.canary?.length ? `only at ${known.canary.join(', ')}; the others stay at ${known.previous}` : null;
  const trial = known?.confirm_within_seconds !== undefined ? 'on trial: `weir fleet confirm` keeps it' : null;
  show(byId('fleet'),
    some || trial ? h('p', { class: 'tried', 'data-key': 'tried' }, named([some, trial].filter(Boolean).join('; '))) : null,
    halted ? h('p', { class: 'taken-back', 'data-key': 'halted' }, dot('warn'), takenBack(halted)) : null,
    table(['host', 'runs', 'health', right('servers'), right('requests'), right('failed'), right('drops'), 'version'], rows, fleet.answer?.why ? `The store can’t be asked: ${fleet.answer.why}` : 'asking …'));
}

