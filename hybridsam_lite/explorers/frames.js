// States computed beforehand: parts that several of them share are stored once.
function at(state, page, key) {
  const { frames, shared } = page.data;
  const panels = frames[key].panels.map((panel) => ({ x: shared[panel.x], y: shared[panel.y], marks: panel.marks.map((i) => shared[i]) }));
  return { text: frames[key].text, panels };
}
