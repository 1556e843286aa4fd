// Converts positions in a text: the contract counts UTF-8 bytes, JavaScript counts UTF-16 code units.

export function offsets(text) {
  const at = new Uint32Array(text.length + 1);
  let bytes = 0;
  for (let i = 0; i < text.length; i++) {
    at[i] = bytes;
    const unit = text.charCodeAt(i);
    if (unit < 0x80) {
      bytes += 1;
    } else if (unit < 0x800) {
      bytes += 2;
    } else if (unit >= 0xd800 && unit < 0xdc00) {
      // A surrogate pair: four bytes, with no boundary between its halves.
      at[++i] = bytes;
      bytes += 4;
    } else {
      bytes += 3;
    }
  }
  at[text.length] = bytes;
  return at;
}
