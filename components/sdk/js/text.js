// Positions in a text. The contract counts bytes of UTF-8, JavaScript counts units of UTF-16.

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
      // The first half of a pair: four bytes, and no boundary between the halves.
      at[++i] = bytes;
      bytes += 4;
    } else {
      bytes += 3;
    }
  }
  at[text.length] = bytes;
  return at;
}
