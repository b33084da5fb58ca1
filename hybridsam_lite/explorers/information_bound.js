// Information about theta, as in bound.py.

function information({ curvature, content }, lam) {
  const known = content.reduce((sum, x) => sum + x, 0);
  const left = content.reduce((sum, x, i) => sum + x * (lam / (lam + curvature[i])), 0);
  return [left / known, lam / (lam + Math.max(...curvature))];
}

function at({ lam }, { data: { spectra, grid, tints }, colors }) {
  const here = spectra.map(([label, spectrum]) => [label, ...information(spectrum, lam)]);
  const text =
    `At lam = ${number(lam)} this share of the information about theta is left: ` +
    `${here.map(([label, left]) => `${label}: ${number(100 * left)}\u00a0%`).join(", ")}.` +
    ` The bound guarantees ${here.map(([, , bound]) => `${number(100 * bound)}\u00a0%`).join(", ")}.`;
  const marks = spectra.flatMap(([label, spectrum], i) => {
    const course = grid.map((x) => [x, ...information(spectrum, x)]);
    return [
      line(course.map(([x, , bound]) => [x, bound]), tints[i], "", { dash: true, width: 1.2 }),
      line(course.map(([x, left]) => [x, left]), tints[i], label),
      points([[lam, here[i][1]]], tints[i], "", { size: 7 }),
    ];
  });
  const panel = {
    x: axis("lam, the price of moving phi", grid[0] / 1.5, grid[grid.length - 1] * 1.5, { log: true }),
    y: axis("share of the information left", 0, 1.03),
    marks: [rule(colors.data, "", { x: lam, dash: false }), line([], colors.data, "lower bound", { dash: true }), ...marks],
  };
  return { text, panels: [panel] };
}
