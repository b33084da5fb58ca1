// The valley of toy A, as in toy.py.

const EDGE = 3.1;

// Largest p a - d b + (a^2 - b^2)/2 over a^2 + b^2 <= rho^2, and its a and b.
function largest(p, d, rho) {
  let low = 0;
  let high = Math.sqrt(p * p + d * d) / Math.max(rho, 1e-12) + 1e-12;
  for (let i = 0; i < 60; i++) {
    const t = (low + high) / 2;
    if ((p / t) ** 2 + (d / (2 + t)) ** 2 > rho * rho) low = t; else high = t;
  }
  const b = -d / (2 + high);
  const a = (p >= 0 ? 1 : -1) * Math.sqrt(Math.max(0, rho * rho - b * b));
  return [p * a - d * b + (a * a - b * b) / 2, a, b];
}

// The largest loss within rho of a perfect fit, and the change of u and v that leads there.
function worst(u, v, rho, m) {
  const p = (u + v) / Math.SQRT2;
  const d = (u - v) / Math.SQRT2;
  const [up, aUp, bUp] = largest(p, d, rho);
  const [down, bDown, aDown] = largest(d, p, rho);
  const rises = Math.abs(up) >= Math.abs(-down);
  const [change, a, b] = rises ? [up, aUp, bUp] : [-down, aDown, bDown];
  return [(m * change ** 2) / 2, (a + b) / Math.SQRT2, (a - b) / Math.SQRT2];
}

function fit(theta, ratio, c) {
  const k = c - theta;
  return [Math.sqrt(Math.abs(k) * ratio), Math.sign(k) * Math.sqrt(Math.abs(k) / ratio)];
}

function branches(k) {
  if (Math.abs(k) < 1e-9) return [[[-EDGE, 0], [EDGE, 0]], [[0, -EDGE], [0, EDGE]]];
  const reach = Math.log((EDGE * EDGE) / Math.abs(k));
  const us = Array.from({ length: 49 }, (_, i) => EDGE * Math.exp((-reach * i) / 48));
  return [1, -1].map((sign) => us.map((u) => [sign * u, (sign * k) / u]));
}

function at({ theta, ratio, rho }, { data: { c, m }, colors, controls }) {
  const [u, v] = fit(theta, ratio, c);
  const [loss, du, dv] = worst(u, v, rho, m);
  const grid = controls[0].values;
  const fits = grid.map((x) => fit(x, ratio, c));
  const losses = fits.map(([a, b]) => worst(a, b, rho, m)[0]);
  const flat = fits.map(([a, b]) => ((rho * rho) / 2) * m * (a * a + b * b));
  const top = Math.max(...losses, ...flat, 1e-3);
  const circle = Array.from({ length: 65 }, (_, i) => [u + rho * Math.cos((2 * Math.PI * i) / 64), v + rho * Math.sin((2 * Math.PI * i) / 64)]);
  const text =
    `theta = ${number(theta)}: the network's share u v is ${number(u * v)}, with u = ${number(u)} and ` +
    `v = ${number(v)}. The loss is 0. The trace of its curvature is ${number(m * (u * u + v * v))}; with weights of one size ` +
    `it would be ${number(2 * m * Math.abs(c - theta))}. Within rho = ${number(rho)} the worst loss is ${number(loss)}; at ` +
    `theta = ${number(c)}, u = v = 0, it would be ${number((m * rho ** 4) / 8)}.`;
  const plane = {
    x: axis("u", -EDGE, EDGE),
    y: axis("v", -EDGE, EDGE),
    marks: [
      ...branches(u * v).map((branch) => line(branch, colors.data, "perfect fits")),
      points([[0, 0]], colors.truth, "silent network", { shape: "x", size: 7 }),
      line(circle, colors.network, "within rho"),
      arrow([u, v], [u + du, v + dv], colors.sam, "to the worst point"),
      points([[u, v]], colors.hybrid, "this fit", { size: 7 }),
    ],
  };
  const curves = {
    x: axis("theta of the fit", grid[0] - 0.1, grid[grid.length - 1] + 0.1),
    y: axis("loss", -0.02 * top, 1.05 * top),
    marks: [
      rule(colors.truth, "truth", { x: c }),
      line(grid.map((x, i) => [x, flat[i]]), colors.erm, "rho² / 2 × trace", { dash: true }),
      line(grid.map((x, i) => [x, losses[i]]), colors.sam, "worst within rho"),
      points([[theta, loss]], colors.hybrid, "this fit", { size: 7 }),
    ],
  };
  return { text, panels: [plane, curves] };
}
