// An explorer of the book: reads its data from the page, builds its controls and draws its figure.
// It needs no network, no kernel and no library, keeps to its own element, and writes text as text only.
// A script of the explorer's kind follows, with the function at(state, page): what is shown in a state, a sentence
// and panels of marks, as in views.py. The parts a kind may use: line, points, rule, arrow, axis, number, signed.

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 58, right: 20, top: 8, bottom: 44 };

// What views.py has: the same names, the same data.

const axis = (label, low, high, more = {}) => ({ label, range: [low, high], log: false, ...more });
const line = (at, color, name = "", more = {}) => ({ kind: "line", at, color, name, dash: false, width: 1.8, opacity: 1, ...more });
const points = (at, color, name = "", more = {}) => ({ kind: "points", at, color, name, shape: "o", size: 5, opacity: 1, ...more });
const rule = (color, name = "", more = {}) => ({ kind: "rule", x: null, y: null, color, name, dash: true, ...more });
const arrow = (start, end, color, name = "") => ({ kind: "arrow", at: [start, end], color, name });

function number(x) {
  if (!Number.isFinite(x)) return "unknown";
  if (x === 0) return "0";
  const [digits, exponent] = x.toExponential(2).split("e");
  if (exponent >= -4 && exponent < 6) return decimal(x, 2 - exponent);
  return `${Number(digits)}e${Number(exponent)}`;
}

// x with so many decimals (fewer than 0 of them round to tens), without zeros at the end.
function decimal(x, places) {
  const text = places > 0 ? x.toFixed(places) : String(Number(x.toPrecision(3)));
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

const signed = (x) => (x >= 0 ? "+" : "") + number(x);

// Elements.

function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Axes.

function scale(axis, from, to) {
  const f = axis.log ? Math.log10 : (x) => x;
  const [low, high] = axis.range.map(f);
  return (x) => from + ((f(x) - low) / (high - low)) * (to - from);
}

// Places and texts of the ticks: those given, powers of ten, or round numbers; at most `most`. (Logarithmic axes
// without two powers of ten have theirs from views.py.)
function ticks(axis, most) {
  const [low, high] = axis.range;
  let found = axis.ticks;
  if (!found && axis.log) {
    const first = Math.ceil(Math.log10(low) - 1e-9);
    const last = Math.floor(Math.log10(high) + 1e-9);
    found = [];
    for (let e = first; e <= last; e++) found.push([10 ** e, e < -2 || e > 3 ? `1e${e}` : String(Number((10 ** e).toPrecision(1)))]);
  } else if (!found) {
    const rough = (high - low) / most;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((x) => x * power).find((x) => x >= rough);
    found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-9) + 1e-12; i++) found.push([i * step, number(i * step)]);
  }
  const every = Math.ceil(found.length / (most + 1));
  return found.filter((_, i) => i % every === 0);
}

// Marks.

const SHAPES = {
  o: (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
  s: (r) => `M${-r} ${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  D: (r) => `M0 ${-1.3 * r}L${1.3 * r} 0L0 ${1.3 * r}L${-1.3 * r} 0z`,
  "^": (r) => `M0 ${-1.2 * r}L${1.1 * r} ${r}H${-1.1 * r}z`,
  v: (r) => `M0 ${1.2 * r}L${1.1 * r} ${-r}H${-1.1 * r}z`,
  P: (r) => `M${-r} ${-r / 3}h${(2 * r) / 3}v${(-2 * r) / 3}h${(2 * r) / 3}v${(2 * r) / 3}h${(2 * r) / 3}v${(2 * r) / 3}h${(-2 * r) / 3}v${(2 * r) / 3}h${(-2 * r) / 3}v${(-2 * r) / 3}h${(-2 * r) / 3}z`,
  x: (r) => `M${-r} ${-r}L${r} ${r}M${-r} ${r}L${r} ${-r}`,
};

const isNumber = (x) => typeof x === "number" && Number.isFinite(x);
const short = (x) => Math.round(x * 10) / 10;

function pathOf(at, x, y) {
  let d = "";
  let pen = "M";
  for (const [a, b] of at) {
    const place = [isNumber(a) ? x(a) : NaN, isNumber(b) ? y(b) : NaN];
    const ok = place.every(Number.isFinite);
    if (ok) d += `${pen}${short(place[0])} ${short(place[1])}`;
    pen = ok ? "L" : "M";
  }
  return d;
}

function draw(mark, x, y, box) {
  const stroke = { fill: "none", stroke: mark.color, "stroke-width": mark.width ?? 1.8, "stroke-opacity": mark.opacity ?? 1, "stroke-linejoin": "round" };
  if (mark.dash) stroke["stroke-dasharray"] = "5 3";
  if (mark.kind === "line") return svg("path", { ...stroke, d: pathOf(mark.at, x, y) });
  if (mark.kind === "rule") {
    const d = mark.x === null ? `M${box.left} ${y(mark.y)}H${box.right}` : `M${x(mark.x)} ${box.top}V${box.bottom}`;
    return svg("path", { ...stroke, "stroke-width": 1, d });
  }
  if (mark.kind === "points") {
    const group = svg("g", mark.shape === "x" ? { ...stroke, "stroke-width": 2 } : { fill: mark.color, "fill-opacity": mark.opacity });
    for (const [a, b] of mark.at) {
      if (isNumber(a) && isNumber(b)) group.append(svg("path", { d: SHAPES[mark.shape](mark.size / 1.6), transform: `translate(${short(x(a))} ${short(y(b))})` }));
    }
    return group;
  }
  const [[a, b], [c, d]] = mark.at.map(([u, v]) => [x(u), y(v)]);
  const long = Math.sqrt((c - a) ** 2 + (d - b) ** 2);
  const head = Math.min(9, long);
  const [u, v] = long > 0 ? [((c - a) / long) * head, ((d - b) / long) * head] : [0, 0];
  return svg("g", { stroke: mark.color, fill: mark.color, "stroke-width": 2 },
    svg("path", { d: `M${a} ${b}L${c - u} ${d - v}` }),
    svg("path", { d: `M${c} ${d}L${c - u - v / 2} ${d - v + u / 2}L${c - u + v / 2} ${d - v - u / 2}z`, "stroke-width": 0 }));
}

function panelOf(panel, width) {
  const height = Math.round(Math.min(320, Math.max(230, 0.8 * width)));
  const box = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
  const rows = ticks(panel.y, Math.floor((box.bottom - box.top) / 38));
  box.left = Math.max(box.left, 28 + 7 * Math.max(...rows.map(([, text]) => text.length))); // beside the axis' label
  const x = scale(panel.x, box.left, box.right);
  const y = scale(panel.y, box.bottom, box.top);
  const out = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${panel.y.label} against ${panel.x.label}` });
  const words = (text, more) => svg("text", { fill: "#222", "font-size": 12, "text-anchor": "middle", ...more }, text);
  for (const [at, text] of ticks(panel.x, Math.floor((box.right - box.left) / 55))) {
    out.append(svg("path", { d: `M${x(at)} ${box.top}V${box.bottom + 4}`, stroke: "#e0e0e0" }), words(text, { x: x(at), y: box.bottom + 17 }));
  }
  for (const [at, text] of rows) {
    out.append(svg("path", { d: `M${box.left - 4} ${y(at)}H${box.right}`, stroke: "#e0e0e0" }), words(text, { x: box.left - 7, y: y(at) + 4, "text-anchor": "end" }));
  }
  out.append(svg("path", { d: `M${box.left} ${box.top}V${box.bottom}H${box.right}`, fill: "none", stroke: "#222" }));
  // A drawing inside the drawing cuts off what is outside of the axes.
  const inside = { x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top };
  out.append(svg("svg", { ...inside, viewBox: `${inside.x} ${inside.y} ${inside.width} ${inside.height}` }, ...panel.marks.map((mark) => draw(mark, x, y, box))));
  const middle = (box.top + box.bottom) / 2;
  out.append(words(panel.x.label, { x: (box.left + box.right) / 2, y: height - 8 }));
  out.append(words(panel.y.label, { x: 14, y: middle, transform: `rotate(-90 14 ${middle})` }));
  return out;
}

function legend(panels) {
  const named = new Map();
  for (const mark of panels.flatMap((panel) => panel.marks)) if (mark.name && !named.has(mark.name)) named.set(mark.name, mark);
  const sample = (mark) => (mark.kind === "points" ? { ...mark, at: [[11, 6]] } : { ...mark, kind: mark.kind === "arrow" ? "arrow" : "line", at: [[1, 6], [21, 6]] });
  const same = (x) => x;
  const items = [...named.values()].map((mark) => element("li", {}, svg("svg", { width: 22, height: 12, "aria-hidden": "true" }, draw(sample(mark), same, same)), mark.name));
  return element("ul", { class: "hs-legend" }, ...items);
}

// Controls: each returns what stands in the page, and calls `changed` when the reader has moved it.

function choiceOf(control, changed) {
  const input = element("select", {}, ...control.texts.map((text) => element("option", {}, text)));
  input.selectedIndex = control.start;
  input.addEventListener("change", changed);
  return { input, row: element("div", { class: "hs-control" }, element("label", {}, element("span", {}, control.label), input)), place: () => input.selectedIndex };
}

function sliderOf(control, changed) {
  const input = element("input", { type: "range", min: 0, max: control.texts.length - 1, step: 1, value: control.start });
  const shown = element("span", { class: "hs-value", "aria-hidden": "true" });
  const say = () => {
    shown.textContent = control.texts[input.valueAsNumber];
    input.setAttribute("aria-valuetext", control.texts[input.valueAsNumber]);
  };
  input.addEventListener("input", () => { say(); changed(); });
  say();
  const row = element("div", { class: "hs-control" }, element("label", {}, element("span", {}, control.label), input), shown);
  if (control.play) row.append(playOf(input, control));
  return { input, row, place: () => input.valueAsNumber };
}

// A button that moves a slider to its end in four seconds, or at once where motion is not wanted.
function playOf(input, control) {
  const button = element("button", { type: "button" });
  const call = (what) => { button.textContent = what; button.setAttribute("aria-label", `${what}: ${control.label}`); };
  const last = Number(input.max);
  let timer = 0;
  const move = (value) => { input.value = value; input.dispatchEvent(new Event("input")); };
  const stop = () => {
    cancelAnimationFrame(timer);
    timer = 0;
    call("Play");
    delete input.dataset.playing; // what is read aloud is held back meanwhile, see show()
    move(input.valueAsNumber);
  };
  button.addEventListener("click", () => {
    if (timer) { stop(); return; }
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) { move(last); return; }
    const first = input.valueAsNumber < last ? input.valueAsNumber : 0;
    let began = null;
    const frame = (now) => {
      began ??= now;
      const value = Math.min(last, Math.round(first + ((now - began) / 4000) * last));
      if (value !== input.valueAsNumber) move(value);
      if (value < last && input.isConnected) timer = requestAnimationFrame(frame); else stop();
    };
    call("Pause");
    input.dataset.playing = "";
    timer = requestAnimationFrame(frame);
  });
  call("Play");
  return button;
}

// The question that comes first, and what happens to its answer. No form: frames that notebooks put outputs in may
// forbid forms.
function questionOf(guess, committed) {
  const input = element("input", { type: "number", step: "any", min: guess.low, max: guess.high, required: "" });
  const label = element("label", {}, element("span", {}, `Your guess, a number from ${number(guess.low)} to ${number(guess.high)}`), input, guess.unit);
  const button = element("button", { type: "button" }, "Commit to it and look");
  const verdict = element("p", { role: "status", tabindex: "-1" });
  const commit = () => {
    if (!input.reportValidity()) return;
    const value = input.valueAsNumber;
    const [guessed, right] = [value, guess.answer].map((x) => `${number(x)} ${guess.unit}`.trimEnd());
    input.disabled = true;
    button.remove();
    verdict.textContent = `You guessed ${guessed}. It is ${right}: off by ${number(Math.abs(value - guess.answer))}.`;
    committed(value);
    verdict.focus();
  };
  button.addEventListener("click", commit);
  input.addEventListener("keydown", (event) => { if (event.key === "Enter") commit(); });
  return element("div", { class: "hs-question" }, element("p", {}, guess.question), label, button, verdict);
}

// All together.

function build(root, at) {
  const page = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  const text = element("p", { class: "hs-text", role: "status" });
  const figure = element("div", { class: "hs-figure", role: "group", "aria-label": page.about });
  const still = root.querySelector(".hs-static");
  const details = root.querySelector("details");
  const controls = page.controls.map((control) => ({ ...control, ...(control.choice ? choiceOf : sliderOf)(control, () => show()) }));
  const body = element("div", {}, ...controls.map((control) => control.row), figure, text);
  let guess = null;
  let width = 0;

  const stateNow = () => Object.fromEntries(controls.map((control) => [control.name, control.values[control.place()]]));
  const isShown = (control, state) => control.when === null || state[control.when[0]] === control.when[1];

  function show() {
    const state = stateNow();
    for (const control of controls) control.row.hidden = !isShown(control, state);
    const seen = at(state, page, controls.filter((control) => isShown(control, state)).map((control) => control.place()).join(","));
    if (guess !== null && page.guess.panel !== null) {
      seen.panels[page.guess.panel].marks.push(rule(page.guess.color, "your guess", { [page.guess.axis]: guess }));
    }
    text.setAttribute("aria-live", body.querySelector("[data-playing]") ? "off" : "polite");
    text.textContent = seen.text;
    const room = Math.max(240, (figure.clientWidth || width - 12) - 16);
    const each = seen.panels.length > 1 && room >= 560 ? Math.floor((room - 8) / seen.panels.length) : Math.min(room, 560);
    figure.replaceChildren(legend(seen.panels), ...seen.panels.map((panel) => panelOf(panel, each)));
  }

  width = root.clientWidth || 600;
  show(); // if this fails, the static picture is still in its place
  if (page.guess) {
    body.hidden = details.hidden = true;
    still.replaceWith(questionOf(page.guess, (value) => { guess = value; body.hidden = details.hidden = false; show(); }), body);
  } else {
    still.replaceWith(body);
  }
  // JupyterLab would take the arrow keys for its cells.
  for (const node of root.querySelectorAll("input, select, button, summary")) node.dataset.lmSuppressShortcuts = "true";
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", page.title);
  new ResizeObserver(() => { if (root.clientWidth && root.clientWidth !== width) { width = root.clientWidth; show(); } }).observe(root);
  root.explorer = { page, at: (state, key) => at(state, page, key) }; // for the console, and for tests
}

function start(kind, at) {
  for (const root of document.querySelectorAll(`.hs-explorer[data-kind="${kind}"]:not([data-ready])`)) {
    root.dataset.ready = "";
    try {
      build(root, at);
    } catch (error) {
      console.error(error);
    }
  }
}
