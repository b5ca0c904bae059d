/**
 * Calls back whoever was told that there is no room, once there is some: after the answers that arrive together are all
 * read, so that the next call brings a batch and not one message.
 */
export class RoomNotice {
  private wanted = true;
  private soon: NodeJS.Immediate | undefined;
  private readonly free: () => number;
  private readonly onRoom: () => void;

  /** `free`: how many messages may come now. */
  constructor(free: () => number, onRoom: () => void) {
    this.free = free;
    this.onRoom = onRoom;
  }

  /** For the caller: how many messages may come. Whoever hears of none is called later. */
  look(): number {
    const free = this.free();
    if (free === 0) this.wanted = true;
    return free;
  }

  /** There may be room again. */
  changed(): void {
    if (!this.wanted || this.soon !== undefined) return;
    this.soon = setImmediate(() => {
      this.soon = undefined;
      if (this.free() === 0) return;
      this.wanted = false;
      this.onRoom();
    });
  }

  close(): void {
    if (this.soon !== undefined) clearImmediate(this.soon);
  }
}
