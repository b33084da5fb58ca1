// Steps of SAM in the plane of theta and phi, as in step.py.

const COUNT = 200;
const LEVELS = [0.02, 0.1, 0.3, 0.7, 1.3, 2.2];

function gradient(theta, phi, c) {
  const q = theta + (phi * phi) / 2 - c;
  return [q, q * phi];
}

function ascent(theta, phi, rho, which, c) {
  const [gTheta, gPhi] = gradient(theta, phi, c);
  const both = Math.sqrt(gTheta * gTheta + gPhi * gPhi);
  if (which === "all") return [(rho * gTheta) / (both + 1e-12), (rho * gPhi) / (both + 1e-12)];
  return [0, (rho * gPhi) / ((which === "phi" ? Math.abs(gPhi) : both) + 1e-12)];
}

function loss(theta, phi, c) {
  const q = theta + (phi * phi) / 2 - c;
  return (q * q) / 2;
}

function walk(theta, phi, rho, lr, which, c) {
  const path = [[theta, phi]];
  for (let i = 0; i < COUNT; i++) {
    const [eTheta, ePhi] = ascent(theta, phi, rho, which, c);
    const [gTheta, gPhi] = gradient(theta + eTheta, phi + ePhi, c);
    theta -= lr * gTheta;
    phi -= lr * gPhi;
    path.push([theta, phi]);
  }
  return path;
}

function at(state, { data: { c }, colors }) {
  const { which, rho, lr, step: n } = state;
  const path = walk(state.theta, state.phi, rho, lr, which, c);
  const plain = walk(state.theta, state.phi, 0, lr, which, c);
  const [theta, phi] = path[n];
  const [eTheta, ePhi] = ascent(theta, phi, rho, which, c);
  const [gTheta, gPhi] = gradient(theta + eTheta, phi + ePhi, c);
  const text =
    `Step ${n}: theta = ${number(theta)}, phi = ${number(phi)}, loss ${number(loss(theta, phi, c))}. Ascent: theta ` +
    `${signed(eTheta)}, phi ${signed(ePhi)}; the loss there is ${number(loss(theta + eTheta, phi + ePhi, c))}. Descent with the gradient from ` +
    `there: theta ${signed(-lr * gTheta)}, phi ${signed(-lr * gPhi)}. After ${COUNT} steps theta is ` +
    `${number(path[COUNT][0])}, in plain training ${number(plain[COUNT][0])}.`;
  const phis = Array.from({ length: 43 }, (_, i) => -2.1 + 0.1 * i);
  const valley = phis.map((y) => [c - (y * y) / 2, y]);
  const sides = LEVELS.flatMap((level) => [-1, 1].map((sign) => valley.map(([x, y]) => [x + sign * Math.sqrt(2 * level), y])));
  const plane = {
    x: axis("theta", c - 2.5, c + 1),
    y: axis("phi", -2.1, 2.1),
    marks: [
      ...sides.map((side) => line(side, colors.data, "same loss", { width: 0.8, opacity: 0.6 })),
      line(valley, colors.data, "valley"),
      line(path.slice(0, n + 1), colors.hybrid, "path", { width: 1.2 }),
      arrow([theta, phi], [theta + eTheta, phi + ePhi], colors.sam, "ascent"),
      arrow([theta, phi], [theta - lr * gTheta, phi - lr * gPhi], colors.truth, "descent"),
      points([[theta, phi]], colors.hybrid, "", { size: 7 }),
    ],
  };
  const course = {
    x: axis("step", -4, COUNT + 4),
    y: axis("theta", c - 2.5, c + 1),
    marks: [
      rule(colors.truth, "truth", { y: c }),
      line(plain.map(([x], i) => [i, x]), colors.erm, "plain training", { dash: true }),
      line(path.map(([x], i) => [i, x]), colors.sam, "SAM"),
      points([[n, theta]], colors.hybrid, "", { size: 7 }),
    ],
  };
  return { text, panels: [plane, course] };
}
