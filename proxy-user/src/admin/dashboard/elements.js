// Elements, and changing only what has changed: nothing flickers, and focus, selection and open parts stay.

const SVG = 'http://www.w3.org/2000/svg';
const DRAWN = new Set(['svg', 'g', 'path', 'rect', 'circle', 'line', 'text', 'tspan', 'title', 'polyline']);

// `title` is drawn only inside of pictures, and is made there alone. What is false or null is left out.
function h(tag, attributes = {}, ...children) {
  const element = DRAWN.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? '' : String(value));
  }
  for (const child of children.flat(4)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

const byId = (id) => document.getElementById(id);
const keyOf = (node) => (node.nodeType === 1 ? node.getAttribute('data-key') : null);

// Makes the children of `place` be like `wanted`.
function show(place, ...wanted) {
  const frame = document.createDocumentFragment();
  for (const one of wanted.flat(4)) if (one) frame.append(one);
  alike(place, frame);
}

function alike(old, made) {
  const keyed = new Map();
  for (const child of old.childNodes) {
    const key = keyOf(child);
    if (key !== null) keyed.set(key, child);
  }
  let at = old.firstChild;
  for (const child of [...made.childNodes]) {
    const key = keyOf(child);
    let known = key !== null ? keyed.get(key) : at;
    if (known && key === null && keyOf(known) !== null) known = null;
    if (!known || known.nodeName !== child.nodeName) {
      old.insertBefore(child, at);
      continue;
    }
    if (known === at) at = at.nextSibling;
    else old.insertBefore(known, at);
    become(known, child);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function become(old, made) {
  if (old.nodeType !== 1) {
    if (old.data !== made.data) old.data = made.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    // What a person has opened stays open.
    if (!made.hasAttribute(name) && !(name === 'open' && old.nodeName === 'DETAILS')) old.removeAttribute(name);
  }
  for (const { name, value } of made.attributes) {
    if (name === 'open' && old.nodeName === 'DETAILS') continue;
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  // What a person types into, and what is drawn by itself, is not ours to change.
  if (!old.hasAttribute('data-own')) alike(old, made);
}

const dot = (kind) => h('span', { class: `dot ${kind}`, 'aria-hidden': 'true' });
const tag = (kind, text) => h('span', { class: `tag ${kind}` }, text);
const button = (name, text, data = {}, kind = '') => h('button', {
  type: 'button', class: `small ${kind}`, 'data-order': name,
  ...Object.fromEntries(Object.entries(data).map(([key, value]) => [`data-${key}`, value])),
}, text);

