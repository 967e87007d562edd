// Colours the code. Without it, the guide reads as well.
for (const code of document.querySelectorAll('pre code')) {
  if (/language-(rust|sql|html|sh|toml)\b/.test(code.className)) hljs.highlightBlock(code);
}
// Code that is wider than the screen can be scrolled with the keyboard.
for (const pre of document.querySelectorAll('pre')) {
  if (pre.scrollWidth > pre.clientWidth) pre.tabIndex = 0;
}
// Commands stand out from what they print.
for (const code of document.querySelectorAll('code.language-console')) {
  code.replaceChildren(...code.textContent.split(/^(?=.)/m).map((line) => {
    if (!line.startsWith('$ ')) return line;
    const command = document.createElement('b');
    command.textContent = line;
    return command;
  }));
}
