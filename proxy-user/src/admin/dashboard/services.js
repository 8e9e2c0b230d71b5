// Each service: a line that tells how it stands, and below it, when opened, charts, servers and what can be done.

// Opened by hand, by name. At first, few services stand open.
const opened = new Map();

function serviceList(view) {
  const place = byId('service-list');
  const all = view.status.services;
  const shown = all.filter((service) => view.matches(service));
  const few = all.filter((service) => !service.made_of?.length).length <= 3;
  const width = Math.max(240, Math.min(640, place.clientWidth < 760 ? place.clientWidth - 26 : (place.clientWidth - 48) / 2));
  show(byId('services-hint'), shown.length === all.length ? plural(all.length, 'service') : `${shown.length} of ${plural(all.length, 'service')}`);
  show(place, shown.map((service) => oneService(view, service, opened.get(service.name) ?? few, Math.floor(width))),
    shown.length ? null : h('p', { class: 'empty' }, 'None is like that.'));
}

function oneService(view, service, isOpen, width) {
  const composite = service.made_of?.length;
  const kind = troubleOf(service);
  const down = service.servers.filter((server) => stateOf(server) === 'bad').length;
  const key = (what) => `s:${service.name}:${what}`;
  const latency = view.latency(service.name);
  const figure = (name, value, extra = '') => h('span', { class: `figure ${extra}` }, h('b', {}, value), ` ${name}`);
  const state = composite ? `made of ${service.made_of.join(', ')}`
    : !service.can_answer ? 'no server answers' : down ? `${down} of ${service.servers.length} down` : plural(service.servers.length, 'server');
  return h('details', { class: `service ${kind}`, 'data-key': service.name, 'data-service': service.name, open: isOpen },
    h('summary', {}, dot(kind), h('span', { class: 'name' }, service.name), h('span', { class: 'state' }, state),
      // What one that is made of others does is theirs; its requests are its routes'.
      figure('req/s', short(composite ? sum(view.routes.routes.filter((route) => route.service === service.name).map((route) => view.rate(`r:${route.name}`))) : view.rate(key('requests')))),
      composite ? null : [figure('errors', percent(view.errorShare(service.name)), view.errorShare(service.name) > 0.01 ? 'bad' : ''),
        figure('median', millis(latency?.p50), 'wide'), figure('slowest 1 %', millis(latency?.p99), 'wide'), spark(view.history, key('requests'))]),
    isOpen ? h('div', { class: 'inside' }, insideService(view, service, key, width)) : null);
}

function insideService(view, service, key, width) {
  const split = view.status.splits.find((one) => one.name === service.name);
  const composite = service.made_of?.length;
  return [
    composite ? null : h('div', { class: 'charts', 'data-key': 'charts' },
      chart(view.history, `${service.name} latency`, 'Latency', [{ name: 'median', kind: 'one', key: key('p50') }, { name: 'slowest 1 %', kind: 'two', key: key('p99') }], millis, width),
      chart(view.history, `${service.name} traffic`, 'Per second', [{ name: 'requests', kind: 'one', key: key('requests') }, { name: 'errors', kind: 'bad', key: key('errors') }, { name: 'pages', kind: 'warn', key: key('pages') }], short, width)),
    service.breaker && service.breaker.state !== 'closed' ? h('p', { class: 'notice warn' }, dot('warn'), `The breaker is ${service.breaker.state}${service.breaker.why ? `: ${service.breaker.why}` : ''}`) : null,
    service.panics ? h('p', { class: 'notice warn' }, dot('warn'), 'So few servers are usable that all of them get requests (panic).') : null,
    split ? variants(view, split, width) : null,
    service.servers.length ? serverTable(view, service) : null,
    h('p', { class: 'foot', 'data-key': 'foot' }, [service.balance && `balance: ${service.balance}`, service.sticky && `sticky: ${service.sticky}`,
      composite ? '' : plural(service.retries, 'retry', 'retries'), service.hedged ? `${counted.format(service.hedged)} hedged` : '', composite ? '' : `${plural(service.pages, 'page')} since the start`].filter(Boolean).join(' · ')),
  ];
}

function serverTable(view, service) {
  return h('div', { 'data-key': 'servers' }, table(['server', 'state and why', right('req/s'), right('failed/s'), right('under way'), right('probe'), ''], service.servers.map((server) => {
    const id = `v:${service.name}/${server.address}`;
    const kind = stateOf(server);
    const name = `${service.name}/${server.address}`;
    const drain = server.draining;
    return h('tr', { 'data-key': server.address, 'data-server': name },
      h('td', {}, dot(kind), h('span', { class: 'mono' }, server.address), server.name ? h('span', { class: 'line' }, server.name) : null,
        server.weight !== 1 || server.tier > 1 ? h('span', { class: 'line' }, `weight ${server.weight}${server.tier > 1 ? `, tier ${server.tier}` : ''}`) : null),
      h('td', { class: 'why' }, tag(kind, server.status), drain ? tag('warn', 'draining') : null, server.since ? h('span', { class: 'for', title: server.since }, ` for ${lasting(ago(server.since))}`) : null,
        h('span', { class: 'line' }, server.why),
        drain ? h('span', { class: 'line' }, `drained by ${drain.who ?? drain.by}, ${lasting(ago(drain.since))} ago${drain.why ? `: ${drain.why}` : ''}`) : null,
        server.carrying ? h('span', { class: 'line' }, `${plural(server.carrying.active, 'connection')} carried untouched now, ${counted.format(server.carrying.connections)} since the start`) : null,
        server.ejected_for ? h('span', { class: 'line' }, `tried again in ${lasting(server.ejected_for)}`) : null),
      number(short(view.rate(`${id}:requests`)), 'req/s'), number(short(view.rate(`${id}:failures`)), 'failed/s'), number(counted.format(server.active), 'under way'), number(millis(server.probe_ms), 'probe'),
      h('td', { class: 'acts' }, server.status === 'unresolved' ? null : drain && drain.by !== 'health' ? button('undrain', 'Undrain', { server: name }) : drain ? null : button('drain', 'Drain', { server: name })));
  }), 'No servers.'));
}

function variants(view, split, width) {
  const all = sum(split.variants.map((one) => one.weight));
  const key = (variant, what) => `x:${split.name}/${variant}:${what}`;
  const line = (what) => split.variants.slice(0, 4).map((one, at) => ({ name: one.name, kind: ['one', 'two', 'three', 'four'][at], key: key(one.name, what) }));
  return h('div', { class: 'split', 'data-key': 'split' },
    h('div', { class: 'charts' }, chart(view.history, `${split.name} slowest`, 'Slowest 1 % of the last minute, by variant', line('p99'), millis, width),
      chart(view.history, `${split.name} errors`, 'Errors of the last minute, by variant', line('errors'), percent, width)),
    table(['variant', right('share'), right('requests, 1 min'), right('errors'), right('median'), right('slowest 1 %')], split.variants.map((one) => h('tr', { 'data-key': one.name },
      h('td', {}, dot(one.can_answer ? 'ok' : 'bad'), h('b', {}, one.name)), number(`${all ? Math.round(one.weight / all * 100) : 0} %${one.weight === one.configured ? '' : ` (configured ${one.configured})`}`, 'share'),
      number(counted.format(one.last_minute.requests), 'requests'), number(percent(one.last_minute.error_ratio), 'errors'), number(millis(one.last_minute.latency_p50_ms), 'median'), number(millis(one.last_minute.latency_p99_ms), 'slowest 1 %'))), ''),
    split.judge ? h('p', { class: 'foot' }, split.judge.told) : null,
    h('p', { class: 'acts' }, button('weights', 'Change weights …', { split: split.name }), split.overridden ? button('weights-reset', 'Back to the configured weights …', { split: split.name }) : null));
}

