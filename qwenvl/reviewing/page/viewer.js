// A picture or a clip as large as the window.
const $ = (id) => document.getElementById(id);

// Another one when the file is another one.
export const addressOf = (what, { id, picture }) => `${what}/${id}?${picture}`;

export const viewer = {
  onClose: () => {},
  get isOpen() {
    return $("viewer").open;
  },
  close: () => $("viewer").close(),

  show(known) {
    const media = document.createElement(known.clip ? "video" : "img");
    media.src = addressOf("whole", known);
    if (known.clip) Object.assign(media, { controls: true, autoplay: true, loop: true, muted: true });
    else media.alt = known.text || known.file;
    media.addEventListener("error", () => {
      if (!known.clip) return ($("whole-name").textContent = `${known.file} cannot be shown.`);
      const still = document.createElement("img");
      still.src = addressOf("thumb", known);
      still.alt = "";
      $("whole").replaceChildren(still);
      $("whole-name").textContent = `${known.file}: this browser cannot play it; its first frame.`;
    });
    $("whole").replaceChildren(media);
    $("whole-name").textContent = known.file;
    if (!this.isOpen) $("viewer").showModal();
  },
};

$("viewer").addEventListener("click", (event) => {
  if (!event.target.closest("video")) viewer.close(); // a video has controls of its own
});
$("viewer").addEventListener("close", () => {
  $("whole").replaceChildren();
  viewer.onClose();
});
