/** A broker that has not answered for so long no longer holds up what goes to the others. */
const SLOW_MS = 200;

/**
 * Holds back new messages while a request is in flight, so that the next batch can grow, but not for a slow broker; and
 * tells when there is room again.
 */
export class RoomGate {
  /** Brokers with a request in flight that is younger than `SLOW_MS`, each with the timer that ends its youth. */
  private readonly young = new Map<number, NodeJS.Timeout>();
  private had = false;
  private telling = false;
  private readonly hasRoom: () => boolean;
  private readonly onRoom: () => void;

  constructor(hasRoom: () => boolean, onRoom: () => void) {
    this.hasRoom = hasRoom;
    this.onRoom = onRoom;
  }

  get held(): boolean {
    return this.young.size > 0;
  }

  /** A request to this broker has gone out, or come to its end; one at a time for each broker. */
  busy(nodeId: number, busy: boolean): void {
    this.release(nodeId);
    if (busy) {
      const grownOld = (): void => {
        this.release(nodeId);
        this.tell();
      };
      this.young.set(nodeId, setTimeout(grownOld, SLOW_MS));
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

  /** Tells once the caller is through: not in the middle of the outcomes of a batch, and once for all of them. */
  tellSoon(): void {
    if (this.telling) return;
    this.telling = true;
    queueMicrotask(() => {
      this.telling = false;
      this.tell();
    });
  }

  close(): void {
    for (const nodeId of this.young.keys()) this.release(nodeId);
  }

  private release(nodeId: number): void {
    clearTimeout(this.young.get(nodeId));
    this.young.delete(nodeId);
  }
}
