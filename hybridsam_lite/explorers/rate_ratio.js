// Two learning rates, as in rates.py.

const limit = (ratio, theta, c, b) => theta + (ratio * (c - theta)) / (ratio + b * b);

function at({ ratio, theta, strength: b }, { data: { c, grid, others }, colors }) {
  const end = limit(ratio, theta, c, b);
  const course = (start) => grid.map((r) => [r, limit(r, start, c, b)]);
  const text =
    `Theta learns ${number(ratio)} times as fast as phi. It goes from ${number(theta)} to ${number(end)}; the ` +
    `network takes the other ${number(c - end)}. The loss ends at zero for every ratio. On the way ` +
    `theta / R - share / b² keeps its value, ${number(theta / ratio)}.`;
  const plane = {
    x: axis("theta", c - 2.5, c + 2.5),
    y: axis("network's share b phi", -2.5, 2.5),
    marks: [
      line([[c - 2.5, 2.5], [c + 2.5, -2.5]], colors.data, "loss zero"),
      rule(colors.truth, "truth", { x: c }),
      line([[theta, 0], [end, c - end]], colors.hybrid, "way of training"),
      points([[theta, 0]], colors.data, "start", { shape: "x", size: 7 }),
      points([[end, c - end]], colors.hybrid, "end", { size: 7 }),
    ],
  };
  const curve = {
    x: axis("theta's rate / phi's", grid[0] / 1.5, grid[grid.length - 1] * 1.5, { log: true }),
    y: axis("theta at the end", c - 2.5, c + 2.5),
    marks: [
      rule(colors.truth, "", { y: c }),
      ...others.map((start) => line(course(start), colors.erm, "other starts", { width: 1 })),
      line(course(theta), colors.hybrid, "this start", { width: 2.4 }),
      points([[ratio, end]], colors.hybrid, "", { size: 7 }),
    ],
  };
  return { text, panels: [plane, curve] };
}
