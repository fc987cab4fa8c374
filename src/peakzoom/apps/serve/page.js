() => {
  // What Gradio leaves without a name for screen readers gets one, whenever it is put there. That a browser cannot show
  // a file, as it cannot AVI, is no error: the network reads it all the same.
  const mend = () => {
    document.querySelectorAll("#clip video").forEach((each) => (each.ariaLabel = "Your clip"));
    document.querySelectorAll(".toast-body").forEach((each) => {
      if (each.innerText.includes("Video not playable")) each.style.display = "none";
    });
  };
  new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
}
