// The way of the traffic: gate, entrypoints, routes, services, servers. Side by side where there is room, below each other where
// there isn't. Of many services, those with trouble and those with most traffic are drawn; the rest is told as a number.

const MOST = { routes: 12, services: 10, servers: 16, each: 4 };
const NARROW = 700;

const troubleOf = (service) => (!service.can_answer ? 'bad'
  : service.servers.some((server) => stateOf(server) === 'bad') || (service.breaker && service.breaker.state !== 'closed')
    || service.panics ? 'warn' : 'ok');

function stateOf(server) {
  if (['down', 'ejected', 'unresolved'].includes(server.status)) return 'bad';
  if (server.draining || server.status === 'starting') return 'warn';
  return server.status === 'unchecked' ? 'idle' : 'ok';
}

// The services without which a composite one is nothing.
function leaves(name, services, depth = 0) {
  const service = services.get(name);
  if (!service || depth > 4) return [];
  return service.made_of?.length ? service.made_of.flatMap((part) => leaves(part, services, depth + 1)) : [service];
}

function graph(view, matches) {
  const { status, routes } = view;
  const services = new Map(status.services.map((service) => [service.name, service]));
  const nodes = [];
  const edges = [];
  const put = (layer, id, title, more) => nodes.push({ layer, id, title, ...more });
  const link = (from, to, rate, state = '') => edges.push({ from, to, rate, state });

  const plain = status.services.filter((service) => !service.made_of?.length && matches(service));
  // Half of the room is for trouble, so that it never hides where the traffic goes.
  const traffic = (service) => view.rate(`s:${service.name}:requests`);
  const rank = (service) => ({ bad: 2e9, warn: 1e9, ok: 0 }[troubleOf(service)]) + traffic(service);
  const troubled = plain.filter((service) => troubleOf(service) !== 'ok').sort((one, other) => rank(other) - rank(one));
  const busy = [...plain].sort((one, other) => traffic(other) - traffic(one));
  const shown = new Set(troubled.slice(0, MOST.services / 2));
  for (const service of busy) if (shown.size < MOST.services) shown.add(service);
  const drawn = plain.filter((service) => shown.has(service));
  const isDrawn = (service) => shown.has(service);

  const ways = routes.routes.map((route) => ({ route, to: leaves(route.service, services).filter(isDrawn) }))
    .filter((way) => way.to.length || !way.route.service);
  const busiest = new Set([...ways].sort((one, other) => view.rate(`r:${other.route.name}`) - view.rate(`r:${one.route.name}`)).slice(0, MOST.routes));
  const kept = ways.filter((way) => busiest.has(way));

  putGate(view, put);
  for (const one of status.entrypoints) {
    const reached = kept.some((way) => way.route.entrypoints.includes(one.name));
    if (!reached && status.entrypoints.length > 6) continue;
    put(1, `e:${one.name}`, one.name, {
      sub: one.syn_flood ? 'flood of SYNs' : one.bind[0] + (one.bind.length > 1 ? ` +${one.bind.length - 1}` : ''),
      rate: view.rate(`e:${one.name}:requests`), state: one.syn_flood ? 'warn' : 'ok', tip: `${one.bind.join(', ')}; ${plural(one.connections, 'connection')}`,
    });
    link('gate', `e:${one.name}`, view.rate(`e:${one.name}:requests`));
  }
  for (const { route, to } of kept) {
    const rate = view.rate(`r:${route.name}`);
    const held = underMaintenance(view, route);
    put(2, `r:${route.name}`, route.name, {
      sub: held ? 'maintenance' : !route.service ? 'answers by itself' : [...route.hosts].slice(0, 1).join('') + (route.path === '*' || route.path === '/' ? '' : route.path),
      rate, state: held ? 'warn' : 'ok', tip: `${route.hosts.join(', ')} ${route.path}`,
    });
    for (const name of route.entrypoints) link(`e:${name}`, `r:${route.name}`, rate / route.entrypoints.length);
    for (const service of to) link(`r:${route.name}`, `s:${service.name}`, to.length > 1 ? view.rate(`s:${service.name}:requests`) : rate);
  }
  // What is carried by port takes no route of HTTP.
  for (const one of status.forwarding?.entrypoints ?? []) {
    for (const service of leaves(one.service, services)) link(`e:${one.entrypoint}`, `s:${service.name}`, view.rate(`k:${service.name}:opened`));
  }
  let room = MOST.servers;
  let pages = 0;
  const hidden = { servers: 0 };
  for (const service of drawn) {
    const rate = view.rate(`s:${service.name}:requests`) + view.rate(`k:${service.name}:opened`);
    const share = view.shares.get(service.name);
    put(3, `s:${service.name}`, service.name, {
      sub: !service.can_answer ? 'no server answers' : share ?? (view.latency(service.name)?.p50 ? `median ${millis(view.latency(service.name).p50)}` : 'no requests'), rate, state: troubleOf(service),
      tip: `${plural(service.servers.length, 'server')}`,
    });
    const order = [...service.servers].sort((one, other) => (stateOf(other) === 'bad') - (stateOf(one) === 'bad'));
    const some = new Set(order.slice(0, Math.min(MOST.each, Math.max(1, room))));
    room -= some.size;
    for (const server of service.servers.filter((one) => some.has(one))) {
      const id = `v:${service.name}/${server.address}`;
      const state = stateOf(server);
      put(4, id, server.address, {
        sub: server.draining ? `draining, ${server.active} under way` : state === 'bad' ? `${server.status}: ${server.why}` : server.status,
        rate: view.rate(`${id}:requests`), state, tip: `${server.status}: ${server.why}`,
      });
      link(`s:${service.name}`, id, view.rate(`${id}:requests`), state === 'bad' ? 'bad' : '');
    }
    hidden.servers += service.servers.length - some.size;
    const paged = view.rate(`s:${service.name}:pages`);
    if (paged > 0) link(`s:${service.name}`, 'page', paged, 'page');
    pages += paged;
  }
  if (pages > 0) put(4, 'page', 'page', { sub: 'in the servers’ place', rate: pages, state: 'page', tip: 'Visitors get a page instead of an answer' });
  const rest = (layer, count, what) => count > 0 && put(layer, `more:${what}`, `${counted.format(count)} more`, { sub: what, state: 'idle', rate: null });
  rest(2, routes.routes.length - kept.length, 'routes');
  rest(3, plain.length - drawn.length, 'services');
  rest(4, hidden.servers + sum(plain.filter((one) => !shown.has(one)).map((one) => one.servers.length)), 'servers');
  return { nodes, edges: edges.filter((edge) => nodes.some((node) => node.id === edge.from) && nodes.some((node) => node.id === edge.to)) };
}

function putGate(view, put) {
  const { gate } = view.status;
  const dropped = view.droppedRate;
  if (gate.state === 'on') {
    put(0, 'gate', 'gate', {
      sub: dropped > 0 ? `drops ${short(dropped)}/s` : gate.interfaces.map((one) => `${one.name} ${one.hook}`).join(', ') || 'attached nowhere',
      rate: view.passedRate, state: gate.absent?.length || !gate.interfaces.length ? 'warn' : 'ok',
      tip: gate.interfaces.map((one) => `${one.name}: ${one.hook} (${one.why})`).join('\n'),
    });
  } else {
    put(0, 'gate', gate.state === 'unavailable' ? 'gate is missing' : 'no gate', {
      sub: 'lists hold at accept', rate: null, state: gate.state === 'unavailable' ? 'warn' : 'idle', tip: gate.why ?? 'The configuration asks for none',
    });
  }
}

function drawPicture(view, matches, width) {
  const whole = graph(view, matches);
  return width < NARROW ? below(whole, width) : beside(whole, width);
}

const fit = (text, pixels, each = 6.7) => {
  const most = Math.max(3, Math.floor(pixels / each));
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
};
const thickness = (rate) => (rate > 0 ? Math.min(8, 1.4 + 1.5 * Math.log10(1 + rate)) : 1.2).toFixed(1);
const perSecond = (node) => (node.rate === null || node.rate === undefined ? '' : `${short(node.rate)}/s`);

function box(node, x, y, width, height, rateInside) {
  const room = width - 22;
  const rate = rateInside ? perSecond(node) : '';
  return h('g', { class: `node ${node.state}`, 'data-key': node.id, transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` },
    h('title', {}, `${node.title}\n${node.tip ?? node.sub ?? ''}`),
    h('rect', { class: 'body', width: width.toFixed(1), height, rx: 6 }),
    h('rect', { class: 'side', width: 4, height, rx: 2 }),
    h('text', { class: 'name', x: 12, y: 16 }, fit(node.title, room - rate.length * 6.5)),
    h('text', { class: 'sub', x: 12, y: 30 }, fit(node.sub ?? '', room, 6)),
    rate ? h('text', { class: 'rate', x: width - 10, y: 16, 'text-anchor': 'end' }, rate) : null);
}

function picture(width, height, label, edges, labels, boxes) {
  return h('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': label },
    h('g', { 'data-key': 'edges' }, edges), h('g', { 'data-key': 'boxes' }, boxes), h('g', { 'data-key': 'labels' }, labels));
}

const inWords = ({ nodes }) => `Way of the traffic: ${['gate', 'entrypoints', 'routes', 'services', 'servers'].map((name, layer) => {
  const all = nodes.filter((node) => node.layer === layer);
  const bad = all.filter((node) => node.state === 'bad');
  return `${all.length} ${name}${bad.length ? `, of these in trouble: ${bad.map((node) => node.title).join(', ')}` : ''}`;
}).join('; ')}.`;

function beside(whole, width) {
  const { nodes, edges } = whole;
  const gap = width < 950 ? 58 : 76;
  const each = Math.min(230, (width - 4 * gap) / 5);
  const step = (width - each) / 4;
  const pitch = 50;
  const height = 36;
  const layers = [0, 1, 2, 3, 4].map((layer) => nodes.filter((node) => node.layer === layer));
  const tall = Math.max(...layers.map((layer) => layer.length)) * pitch;
  const place = new Map();
  const put = (layer, wanted) => {
    const sorted = layers[layer].map((node, at) => ({ node, at, y: wanted(node) ?? 1e6 }));
    sorted.sort((one, other) => one.y - other.y || one.at - other.at);
    let next = 0;
    for (const one of sorted) { one.y = Math.max(Math.min(one.y, tall), next); next = one.y + pitch; }
    // Pushed below the end: moved up again, from the last on.
    let last = tall - pitch;
    for (const one of [...sorted].reverse()) { one.y = Math.min(one.y, Math.max(0, last)); last = one.y - pitch; }
    for (const one of sorted) place.set(one.node.id, { x: layer * step, y: one.y + 6 });
  };
  const room = tall - layers[4].length * pitch;
  layers[4].forEach((node, at) => place.set(node.id, { x: 4 * step, y: 6 + room / 2 + at * pitch }));
  for (const layer of [3, 2, 1, 0]) {
    put(layer, (node) => {
      const ends = edges.filter((edge) => edge.from === node.id && edge.to !== 'page' && place.has(edge.to)).map((edge) => place.get(edge.to).y - 6);
      return ends.length ? sum(ends) / ends.length : null;
    });
  }
  const lines = edges.map((edge) => {
    const [from, to] = [place.get(edge.from), place.get(edge.to)];
    const [x1, y1, x2, y2] = [from.x + each, from.y + height / 2, to.x, to.y + height / 2];
    const bend = (x2 - x1) / 2;
    return h('path', {
      'data-key': `${edge.from}>${edge.to}`, class: `edge ${edge.state} ${edge.rate > 0 ? 'live' : ''}`, 'stroke-width': thickness(edge.rate),
      d: `M${x1.toFixed(1)} ${y1.toFixed(1)}C${(x1 + bend).toFixed(1)} ${y1.toFixed(1)} ${(x2 - bend).toFixed(1)} ${y2.toFixed(1)} ${x2.toFixed(1)} ${y2.toFixed(1)}`,
    });
  });
  // Where no line passes: below the end of those that come from above.
  const beneath = (node) => sum(edges.filter((edge) => edge.to === node.id).map((edge) => place.get(edge.from).y - place.get(node.id).y)) < 0;
  const labels = nodes.filter((node) => node.layer > 0 && perSecond(node) && (node.rate > 0 || edges.some((edge) => edge.to === node.id)))
    .map((node) => h('text', {
      class: 'flow', 'data-key': node.id, x: (place.get(node.id).x - 7).toFixed(1), y: (place.get(node.id).y + height / 2 + (beneath(node) ? 16 : -7)).toFixed(1), 'text-anchor': 'end',
    }, perSecond(node)));
  const boxes = nodes.map((node) => box(node, place.get(node.id).x, place.get(node.id).y, each, height, node.layer === 0));
  return picture(width, tall + 4, inWords(whole), lines, labels, boxes);
}

// A tree: what several lead to stands below the first of them.
function below(whole, width) {
  const [pitch, height, indent] = [42, 36, 14];
  const place = new Map();
  const lines = [];
  let row = 0;
  const visit = (node, parent, depth) => {
    if (!node || place.has(node.id)) return;
    place.set(node.id, { x: depth * indent, y: 4 + row * pitch });
    row += 1;
    if (parent) {
      const [from, to] = [place.get(parent.id), place.get(node.id)];
      lines.push(h('path', {
        'data-key': `>${node.id}`, class: `edge ${node.state === 'bad' ? 'bad' : ''} ${node.rate > 0 ? 'live' : ''}`,
        'stroke-width': Math.min(2, thickness(node.rate)), d: `M${from.x + 7} ${from.y + height}V${to.y + height / 2}H${to.x}`,
      }));
    }
    for (const edge of whole.edges.filter((one) => one.from === node.id)) {
      visit(whole.nodes.find((one) => one.id === edge.to), node, node.layer === 0 ? 1 : depth + 1);
    }
  };
  for (const node of whole.nodes) visit(node, null, node.layer);
  const boxes = whole.nodes.map((node) => {
    const { x, y } = place.get(node.id);
    return box(node, x, y, width - x - 1, height, true);
  });
  return picture(width, row * pitch + 6, inWords(whole), lines, [], boxes);
}

