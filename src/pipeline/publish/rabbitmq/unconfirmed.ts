const FIRST_CAPACITY = 1024;

/**
 * What is outstanding on a channel, by delivery tag: 1, 2, 3 … in the order of `push`. A ring, because a Map that
 * 25,000 pass through a second, and the pairs that iterating it makes, were a seventh of all garbage.
 */
export class Unconfirmed<T> {
  /** Its length is a power of two: the slot of a tag is its lowest bits. */
  private slots: (T | undefined)[] = emptySlots(FIRST_CAPACITY);
  /** No lower tag is outstanding. */
  private first = 1;
  private next = 1;
  private count = 0;

  get size(): number {
    return this.count;
  }

  /** Not above the highest tag while anything is outstanding. */
  get oldestTag(): number {
    return this.first;
  }

  get oldest(): T | undefined {
    return this.count === 0 ? undefined : this.slots[this.slotOf(this.first)];
  }

  push(item: T): void {
    if (this.next - this.first === this.slots.length) this.grow();
    this.slots[this.slotOf(this.next++)] = item;
    this.count++;
  }

  /** The one with this tag; undefined when it is not outstanding (any more). */
  take(tag: number): T | undefined {
    if (tag < this.first || tag >= this.next) return undefined;
    const slot = this.slotOf(tag);
    const item = this.slots[slot];
    if (item === undefined) return undefined;
    this.slots[slot] = undefined;
    this.count--;
    while (this.first < this.next && this.slots[this.slotOf(this.first)] === undefined) this.first++;
    return item;
  }

  clear(): void {
    this.slots.fill(undefined);
    this.first = this.next;
    this.count = 0;
  }

  /** In the order of sending. */
  *[Symbol.iterator](): Generator<T> {
    for (let tag = this.first; tag < this.next; tag++) {
      const item = this.slots[this.slotOf(tag)];
      if (item !== undefined) yield item;
    }
  }

  private slotOf(tag: number): number {
    return tag & (this.slots.length - 1);
  }

  /** One that the broker does not confirm for long keeps the place of all that come after it. */
  private grow(): void {
    const slots = emptySlots<T>(this.slots.length * 2);
    for (let tag = this.first; tag < this.next; tag++) {
      slots[tag & (slots.length - 1)] = this.slots[this.slotOf(tag)];
    }
    this.slots = slots;
  }
}

function emptySlots<T>(length: number): (T | undefined)[] {
  return Array.from<T | undefined>({ length }).fill(undefined);
}
