// Lines over the last 15 minutes, or as long as the page has looked. What is missing is a gap, not a zero.

const CHART = { height: 110, left: 46, right: 8, top: 8, bottom: 18 };

// So many minutes are shown: as few as hold what there is.
function minutesOf(history) {
  const [first, last] = [history.times[0], history.times.at(-1)];
  return [1, 2, 5, 10, 15].find((minutes) => last - first <= minutes * 60000) ?? 15;
}

function top(lists) {
  let most = 0;
  for (const list of lists) for (const value of list) if (value > most) most = value;
  if (most <= 0) return 1;
  const unit = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 2.5, 5, 10].map((step) => step * unit).find((step) => step >= most);
}

// A point for each two pixels at most: the highest of those that fall there, so that no peak is lost.
function line(times, values, x, y, width) {
  let path = '';
  let pen = false;
  let at = 0;
  while (at < times.length) {
    const column = Math.floor(x(times[at]) / 2);
    let most = null;
    let place = 0;
    for (; at < times.length && Math.floor(x(times[at]) / 2) === column; at += 1) {
      const value = values[at];
      if (value !== null && value !== undefined && (most === null || value > most)) { most = value; place = x(times[at]); }
    }
    if (most === null) { pen = false; continue; }
    if (place < 0 || place > width) continue;
    path += `${pen ? 'L' : 'M'}${place.toFixed(1)} ${y(most).toFixed(1)}`;
    pen = true;
  }
  return path;
}

// `lines`: name, class, and key in the history of each. `tell` puts a value into words.
function chart(history, key, title, lines, tell, width) {
  const { height, left, right, top: above, bottom } = CHART;
  const inner = width - left - right;
  const now = history.times.at(-1) ?? Date.now();
  const lists = lines.map((one) => history.of(one.key));
  const most = top(lists);
  const all = minutesOf(history);
  const x = (time) => inner * (1 - (now - time) / (all * 60000));
  const y = (value) => (height - above - bottom) * (1 - value / most);
  const last = lists.map((list) => list.at(-1) ?? null);
  const when = (part) => (part === 0 ? 'now' : all * part < 1 ? `−${Math.round(all * part * 60)} s` : `−${(all * part).toFixed(all * part % 1 ? 1 : 0)} min`);
  return h('figure', { class: 'chart', 'data-key': key, 'data-chart': key },
    h('figcaption', {}, h('span', { class: 'title' }, title), lines.map((one, at) => h('span', { class: `legend ${one.kind}` }, `${one.name} `,
      h('b', { 'data-line': one.key }, tell(last[at]))))),
    h('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': `${title}, last ${plural(all, 'minute')}. Now: ${lines.map((one, at) => `${one.name} ${tell(last[at])}`).join(', ')}` },
      [0, 0.5, 1].map((part) => h('g', { class: 'grid' },
        h('line', { x1: left, x2: width - right, y1: (above + y(most * part)).toFixed(1), y2: (above + y(most * part)).toFixed(1) }),
        h('text', { x: left - 6, y: (above + y(most * part) + 4).toFixed(1), 'text-anchor': 'end' }, tell(most * part)))),
      [1, 0.5, 0].map((part) => h('text', { class: 'when', x: (left + inner * (1 - part)).toFixed(1), y: height - 4, 'text-anchor': { 1: 'start', 0: 'end' }[part] ?? 'middle' }, when(part))),
      h('g', { transform: `translate(${left} ${above})` }, lines.map((one, at) => h('path', { class: `line ${one.kind}`, d: line(history.times, lists[at], x, y, inner) })))));
}

function spark(history, key, kind = '') {
  const [width, height] = [120, 26];
  const list = history.of(key);
  const most = top([list]);
  const now = history.times.at(-1) ?? Date.now();
  const x = (time) => width * (1 - (now - time) / (minutesOf(history) * 60000));
  const y = (value) => 2 + (height - 4) * (1 - value / most);
  return h('svg', { class: `spark ${kind}`, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    h('path', { class: 'line', d: line(history.times, list, x, y, width) }));
}

