/** From here on the runtime's own encoder is faster. */
const SHORT = 64;

/**
 * Writes short ASCII by hand: a call into the runtime costs more than the loop. False when the text is neither; then
 * what stands at `at` is to be written over.
 */
export function writeShortAscii(buffer: Buffer, at: number, text: string): boolean {
  const { length } = text;
  if (length >= SHORT) return false;
  let seen = 0;
  for (let i = 0; i < length; i++) {
    const unit = text.charCodeAt(i);
    seen |= unit;
    buffer[at + i] = unit;
  }
  return seen < 0x80;
}
