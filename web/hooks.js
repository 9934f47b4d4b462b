/** Hooks into objects of ComfyUI that offer a callback but no event. */

/** From now on calls `action()` after each call of `owner[method]`, which need not exist. */
export function after(owner, method, action) {
  const original = owner[method];
  owner[method] = function (...args) {
    const result = original?.apply(this, args);
    action();
    return result;
  };
}
