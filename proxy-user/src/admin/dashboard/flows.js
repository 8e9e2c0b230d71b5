// What the kernel carries by port. There only where something is carried so, or was and has flows left.

const OVER = new Set(['closed', 'reset_by_client', 'reset_by_server', 'cut', 'time_wait']);

function carriedByKernel(view) {
  const { forwarding } = view.status;
  const wanted = forwarding?.entrypoints ?? [];
  const services = forwarding?.services ?? [];
  byId('carried-card').hidden = !wanted.length && !services.length;
  const relayed = new Map(wanted.filter((one) => one.why_not).map((one) => [one.entrypoint, one.why_not]));
  const carried = new Set(wanted.filter((one) => !one.why_not).map((one) => one.entrypoint));
  byId('carried-hint').textContent = [...carried].join(', ');
  const dead = (forwarding?.servers ?? []).filter((one) => one.dead).map((one) => one.server);
  const rows = services.map((one) => {
    const states = Object.entries(one.flows).filter(([, count]) => count);
    const open = sum(states.filter(([state]) => !OVER.has(state)).map(([, count]) => count));
    const stopped = Object.keys(one.stopped).map((reason) => [reason, view.rate(`k:${one.service}:stopped:${reason}`)]).filter(([, rate]) => rate > 0);
    return h('tr', { 'data-key': one.service },
      h('td', {}, dot(stopped.length ? 'warn' : 'ok'), h('b', {}, one.service),
        h('span', { class: 'line' }, states.map(([state, count]) => `${count} ${state.replaceAll('_', ' ')}`).join(', ') || 'no flows'),
        stopped.length ? h('span', { class: 'line bad' }, `not carried on: ${stopped.map(([reason, rate]) => `${reason.replaceAll('_', ' ')} ${short(rate)}/s`).join(', ')}`) : null),
      number(String(open)), number(`${short(view.rate(`k:${one.service}:opened`))}/s`), number(`${short(view.rate(`k:${one.service}:bytes`))}B/s`));
  });
  show(byId('carried'),
    table(['service', right('open'), right('new'), right('bytes')], rows, 'Nothing is carried yet.'),
    dead.length ? h('p', { class: 'line bad', 'data-key': 'dead' }, `dead, and their clients are reset: ${dead.join(', ')}`) : null,
    [...relayed].map(([name, why]) => h('p', { class: 'line', 'data-key': `relayed ${name}` }, `${name} is not carried by the kernel: ${why}`)));
}

