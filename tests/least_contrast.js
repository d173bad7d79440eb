(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = text => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    const data = canvas.getImageData(0, 0, 1, 1).data; return [data[0], data[1], data[2], data[3] / 255]; };
  const over = (top, low) => [0, 1, 2].map(i => top[i] * top[3] + low[i] * (1 - top[3])).concat(1);
  const behind = node => { const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((low, top) => over(top, low), [255, 255, 255, 1]); };
  const light = c => { const [r, g, b] = c.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  let least = [99, ""];
  for (const node of document.querySelectorAll(".md-content *, .md-nav__link, .md-tabs__link, .md-header__topic, .md-footer *")) {
    const words = [...node.childNodes].filter(one => one.nodeType === 3).map(one => one.textContent.trim()).join("");
    const box = node.getBoundingClientRect(), style = getComputedStyle(node);
    if (!words || !box.width || !box.height || style.visibility === "hidden" || node.closest(".headerlink, svg, [hidden]")) continue;
    let shown = 1; for (let at = node; at; at = at.parentElement) shown *= +getComputedStyle(at).opacity;
    if (shown < 0.1) continue;
    const ground = behind(node), ink = rgba(style.color); ink[3] *= shown;
    const [low, high] = [light(over(ink, ground).slice(0, 3)), light(ground.slice(0, 3))].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < least[0]) least = [ratio, words.slice(0, 40) + " in " + node.tagName + "." + node.className];
  }
  return least;
})()
