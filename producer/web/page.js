"use strict";
{
  const PERIOD = 3000;
  const PATIENCE = 8000;
  const lost = document.getElementById("lost");

  // Style properties set from script are allowed by the page's policy; style attributes are not.
  const dress = () => {
    for (const picture of document.querySelectorAll(".picture[data-ratio]")) {
      const ratio = Math.min(3, Math.max(1 / 3, Number(picture.dataset.ratio) || 1));
      picture.style.setProperty("--ratio", ratio);
      picture.style.setProperty("--cut", `${picture.querySelector(".slider").value}%`);
    }
  };

  const attributes = (old, fresh) => {
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && name !== "style") {
        old.removeAttribute(name);
      }
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) {
        old.setAttribute(name, value);
      }
    }
  };

  // Changes what differs and nothing else: focus, sliders and the place on the page stay.
  const morph = (old, fresh) => {
    if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== fresh.data) {
        old.data = fresh.data;
      }
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      return;
    }
    attributes(old, fresh);
    const byId = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
    let next = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      const known = byId.get(child.id);
      if (known && known !== next && known.nodeName === child.nodeName) {
        old.insertBefore(known, next);
        morph(known, child);
      } else if (next && next.nodeName === child.nodeName && (next.id ?? "") === (child.id ?? "")) {
        const same = next;
        next = next.nextSibling;
        morph(same, child);
      } else {
        old.insertBefore(document.importNode(child, true), next);
      }
    }
    while (next) {
      const gone = next;
      next = next.nextSibling;
      gone.remove();
    }
  };

  const look = async () => {
    try {
      const answer = await fetch(location.origin + location.pathname, {
        cache: "no-cache",
        credentials: "same-origin",
        signal: AbortSignal.timeout(PATIENCE),
      });
      if (!answer.ok && answer.status !== 404) {
        throw new Error(answer.status);
      }
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of ["header", "main"]) {
        morph(document.querySelector(part), fresh.querySelector(part));
      }
      document.title = fresh.title;
      lost.hidden = true;
      dress();
    } catch {
      lost.textContent = lost.dataset.text;
      lost.hidden = false;
    }
  };

  const wait = () =>
    setTimeout(async () => {
      if (!document.hidden) {
        await look();
      }
      wait();
    }, PERIOD);

  document.addEventListener("visibilitychange", () => document.hidden || look());
  document.addEventListener("input", ({ target }) => {
    if (target.classList.contains("slider")) {
      target.closest(".picture").style.setProperty("--cut", `${target.value}%`);
    }
  });
  dress();
  wait();
}
