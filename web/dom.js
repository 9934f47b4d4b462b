/** DOM helpers of the views. */

/** An element with that class, those attributes, and `children`: elements or text. */
export function element(tag, className, attributes = {}, ...children) {
  const made = document.createElement(tag);
  made.className = className;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function button(className, label, attributes, onClick) {
  const made = element("button", className, { type: "button", ...attributes }, label);
  made.addEventListener("click", onClick);
  return made;
}
