/** A broker that has not answered for so long no longer holds up what goes to the others. */
const SLOW_MS = 200;

/**
 * Holds back new messages while a request is in flight, so that the next batch can grow, but not for a slow broker; and
 * tells when there is room again.
 */
export class RoomGate {
  held = false;
  private inFlight = 0;
  private had = false;
  private timer: NodeJS.Timeout | undefined;
  private readonly hasRoom: () => boolean;
  private readonly onRoom: () => void;

  constructor(hasRoom: () => boolean, onRoom: () => void) {
    this.hasRoom = hasRoom;
    this.onRoom = onRoom;
  }

  /** A request has gone out, or come to its end. */
  busy(busy: boolean): void {
    this.inFlight += busy ? 1 : -1;
    clearTimeout(this.timer);
    this.held = this.inFlight > 0;
    if (this.held) {
      this.timer = setTimeout(() => {
        this.held = false;
        this.tell();
      }, SLOW_MS);
    }
    this.tell();
  }

  /** Notes whether there is room, without telling. */
  look(): void {
    this.had = this.hasRoom();
  }

  /** Tells, if there was no room when it was looked last. */
  tell(): void {
    const had = this.had;
    this.look();
    if (this.had && !had) this.onRoom();
  }

  close(): void {
    clearTimeout(this.timer);
  }
}
