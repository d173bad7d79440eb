"use strict";
// Two pictures of one frame over each other, and a range input that says how much of the upper one is seen.
for (const comparison of document.querySelectorAll("[data-comparison]")) {
  const find = (name) => comparison.querySelector(`[data-${name}]`);
  const [frame, left, right, wipe, stage] = ["frame", "left", "right", "wipe", "stage"].map(find);
  const [over, under] = [find("over"), find("under")];
  const picture = (kind) =>
    comparison.querySelector(`[data-of="${frame.selectedIndex}"][data-kind="${kind.selectedIndex}"]`);
  const draw = () => {
    for (const [shown, kind] of [[over, left], [under, right]]) {
      const source = picture(kind);
      shown.src = source.src;
      shown.alt = source.alt;
    }
  };
  const cut = () => {
    stage.style.setProperty("--cut", `${wipe.value}%`);
    wipe.setAttribute("aria-valuetext", `${wipe.value} % of the left picture`);
  };
  for (const choice of [frame, left, right]) choice.addEventListener("change", draw);
  wipe.addEventListener("input", cut);
  const drag = (event) => {
    const place = stage.getBoundingClientRect();
    wipe.value = (100 * (event.clientX - place.left)) / place.width;
    cut();
  };
  stage.addEventListener("pointerdown", (event) => {
    event.preventDefault(); // of the picture, which a browser would carry away
    stage.setPointerCapture(event.pointerId);
    drag(event);
  });
  stage.addEventListener("pointermove", (event) => event.buttons && drag(event));
  draw();
  cut();
}
