// Sets the colours that were chosen before, ahead of the first paint.
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("gmflow-theme");
  } catch {
    // A browser that keeps nothing: the system's colours.
  }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
}
