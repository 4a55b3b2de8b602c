// What the page does in the browser alone. It presses buttons that are there; it knows no run.
//
// "/" goes to the question box and Escape stops, unless somebody is typing or something is
// open that takes the key. A thread picked on a narrow window folds the sidebar that covers it.
const BOX = '[data-testid="stChatInput"] textarea';
const STOP = '.st-key-stop button';
const OPEN = '[role="dialog"], [role="menu"], [role="listbox"], [data-testid="stPopoverBody"]';
const PICKED = '.st-key-threads [data-testid="stButton"] button, .st-key-new-question button';
const FOLD = '[data-testid="stSidebarCollapseButton"] button';
const COVERED = '(max-width: 768px)';  // where Streamlit lays the sidebar over the page

const typing = (target) =>
  target.isContentEditable || ['INPUT', 'TEXTAREA', 'SELECT'].includes(target.tagName);

const focus = () => {
  const box = document.querySelector(BOX);
  if (box && !box.disabled) box.focus();
  return Boolean(box && !box.disabled);
};

const stop = () => {
  const button = document.querySelector(STOP);
  if (button) button.click();
  return Boolean(button);
};

const pressed = (event) => {
  if (event.isComposing || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  if (typing(event.target) || document.querySelector(OPEN)) return;
  const done = event.key === 'Escape' ? stop() : event.key === '/' && letters && focus();
  if (done) event.preventDefault();
};

const picked = (event) => {
  if (!matchMedia(COVERED).matches || !event.target.closest(PICKED)) return;
  document.querySelector(FOLD)?.click();
};

let letters = false;

// Called again with new data. What listens already is not added a second time.
export default function ({ data }) {
  letters = data.letters;
  window.addEventListener('keydown', pressed, true);  // before what closes a menu has closed it
  document.addEventListener('click', picked);
  document.body.dataset.keys = letters ? 'on' : 'off';
}
