"""A button that copies a text. It stands in the browser alone: a click runs no script here.

A browser lets a page write to the clipboard in the middle of a click, and only where the page
comes over https or from this machine; elsewhere the old command for a selected text still does.
"""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

_HTML = '<button type="button"></button><span role="status"></span>'
_JS = """
const sheet = new CSSStyleSheet();  // one for all buttons
sheet.replaceSync(`
:host { display: inline-flex; margin-left: -0.45rem; }
button {
  display: inline-flex; align-items: center; justify-content: center; cursor: pointer;
  min-width: 2rem; height: 2rem; padding: 0 0.4rem; border: 0; border-radius: var(--st-base-radius);
  background: none; color: var(--st-text-color); opacity: 0.7;
}
button:hover { opacity: 1; background: var(--st-secondary-background-color); }
button:focus-visible { opacity: 1; outline: 2px solid var(--st-primary-color); }
svg { width: 1.05rem; height: 1.05rem; fill: none; stroke: currentColor; stroke-width: 1.5; }
span { align-self: center; font: 0.875rem var(--st-font); color: var(--st-text-color); }
`);
const SVG = lines => `<svg viewBox="0 0 16 16" aria-hidden="true"><path d="${lines}"/></svg>`;
const COPY = SVG("M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3"), DONE = SVG("M3 8.5l3.5 3.5L13 4.5");

function select(text) {
  const area = document.createElement("textarea");
  area.value = text;
  area.style.position = "fixed";
  area.style.opacity = 0;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return select(text);
  }
}

export default function ({ data, parentElement }) {
  const button = parentElement.querySelector("button");
  const status = parentElement.querySelector("span");
  parentElement.adoptedStyleSheets = [sheet];
  button.title = data.label;
  button.setAttribute("aria-label", data.label);
  button.innerHTML = COPY;
  let timer;
  button.onclick = async () => {
    const done = await copy(data.text);
    button.focus();
    clearTimeout(timer);
    button.innerHTML = done ? DONE : COPY;
    status.textContent = done ? data.done : "";
    timer = setTimeout(() => { button.innerHTML = COPY; status.textContent = ""; }, 2000);
  };
}
"""
_component = st.components.v2.component("stepwise_copy", html=_HTML, js=_JS)


def copy_button(
    place: DeltaGenerator, text: str, label: str, key: str, done: str = "\u2713"
) -> None:
    """Copies `text` to the letter. `label` names the button, `done` is said when it is copied."""
    with place:
        _component(key=key, data={"text": text, "label": label, "done": done}, width="content")
