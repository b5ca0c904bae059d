import type { OutboxEvent } from '../../src/pipeline/capture/event.ts';
import type { Message } from '../../src/pipeline/envelope/message.ts';
import type { Outcome, Publisher, PublisherEvents } from '../../src/pipeline/publish/publisher.ts';

/** Publishers never look at the event behind a message. */
const NO_EVENT = Object.freeze({}) as OutboxEvent;
/** Not a time long ago: Kafka deletes records by their time, and may do so before a test has read them. */
const NOW_MS = Date.now();

export type MessageParts = Partial<Omit<Message, 'event' | 'sizeBytes'>> &
  Pick<Message, 'destination' | 'id'>;

export function makeMessage(parts: MessageParts): Message {
  const message = {
    key: 'key',
    routingKey: parts.key ?? 'key',
    type: 'Happened',
    contentType: 'application/json',
    timestampMs: NOW_MS,
    headers: undefined,
    body: Buffer.from('{}'),
    ...parts,
  };
  const headers = Object.entries(message.headers ?? {}).reduce((sum, [k, v]) => sum + k.length + v.length, 0);
  const sizeBytes =
    (message.body?.length ?? 0) + 3 * (headers + message.id.length + (message.key?.length ?? 0)) + 100;
  return { ...message, event: NO_EVENT, sizeBytes };
}

interface LaneQueue {
  readonly messages: Message[];
  outstanding: number;
  unanswered: number;
  limit: number;
  retryAt: number;
}

const RETRY_MS = 20;

/**
 * The smallest user of a publisher that keeps its contract: lanes in order, `unknown` again until it is known, groups
 * halved to find a poison message. It records every breach on the publisher's side in `breaches`.
 */
export class Driver {
  readonly publisher: Publisher;
  readonly breaches: string[] = [];
  /** Final outcomes: durable or rejected. */
  readonly final = new Map<Message, Outcome>();
  readonly unknowns: Outcome[] = [];
  readonly connections: boolean[] = [];
  readonly fatal: Error[] = [];
  rooms = 0;
  /** What the publisher is told when it asks whether it may write. */
  leads = true;
  /** As the relay does for a while: what misses its destination is sent again. */
  patient = false;
  private readonly lanes = new Map<string, LaneQueue>();
  private timer: NodeJS.Timeout | undefined;
  private stopped = false;

  constructor(create: (events: PublisherEvents) => Publisher) {
    this.publisher = create({
      onRoom: () => {
        this.rooms++;
        if (this.publisher.room() <= 0) this.breaches.push('onRoom without room');
        this.pump();
      },
      onFatal: (error) => this.fatal.push(error),
      onConnection: (connected) => this.connections.push(connected),
      mayStart: () => this.leads,
    });
  }

  send(messages: readonly Message[]): void {
    for (const message of messages) this.enqueue(message);
    this.pump();
  }

  /** Nothing is sent any more, not even again. */
  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
  }

  outcomes(messages: readonly Message[]): (Outcome | undefined)[] {
    return messages.map((message) => this.final.get(message));
  }

  allFinal(messages: readonly Message[]): boolean {
    return messages.every((message) => this.final.has(message));
  }

  private enqueue(message: Message): void {
    const unknown = this.lanes.get(`?${message.destination}`);
    const lane = (unknown?.messages.length ?? 0) > 0 ? undefined : this.publisher.laneOf(message);
    const name = lane ?? `?${message.destination}`;
    let queue = this.lanes.get(name);
    if (queue === undefined) {
      const limit = lane === undefined ? 1 : this.publisher.laneLimit.events;
      queue = { messages: [], outstanding: 0, unanswered: 0, limit, retryAt: 0 };
      this.lanes.set(name, queue);
    }
    queue.messages.push(message);
  }

  private readonly pump = (): void => {
    if (this.stopped) return;
    this.resolveLanes();
    for (let room = this.publisher.room(); room > 0; room = this.publisher.room()) {
      const batch = this.take(room);
      if (batch.size === 0) break;
      this.publish(batch);
    }
    const waiting = [...this.lanes.values()].some(
      (lane) => lane.messages.length > 0 && lane.outstanding === 0,
    );
    clearTimeout(this.timer);
    if (waiting) this.timer = setTimeout(this.pump, RETRY_MS);
  };

  private resolveLanes(): void {
    for (const [name, lane] of this.lanes) {
      const first = lane.messages[0];
      if (!name.startsWith('?') || lane.outstanding > 0 || first === undefined) continue;
      if (this.publisher.laneOf(first) === undefined) continue;
      this.lanes.delete(name);
      for (const message of lane.messages) this.enqueue(message);
    }
  }

  private take(room: number): Map<Message, LaneQueue> {
    const batch = new Map<Message, LaneQueue>();
    let bytes = 0;
    const now = performance.now();
    for (const lane of this.lanes.values()) {
      if (lane.outstanding > 0 || lane.retryAt > now || bytes >= this.publisher.maxPublishBytes) continue;
      let laneBytes = 0;
      for (const message of lane.messages.slice(0, Math.min(lane.limit, room - batch.size))) {
        const fits = laneBytes + message.sizeBytes <= this.publisher.laneLimit.bytes;
        if (lane.outstanding > 0 && !fits) break;
        batch.set(message, lane);
        lane.outstanding++;
        laneBytes += message.sizeBytes;
      }
      lane.unanswered = lane.outstanding;
      bytes += laneBytes;
    }
    return batch;
  }

  private publish(batch: Map<Message, LaneQueue>): void {
    const answers = new Map<Message, Outcome>();
    this.publisher.publish([...batch.keys()], (message, outcome) => {
      const lane = batch.get(message);
      if (lane === undefined) this.breaches.push(`an outcome for ${message.id}, which was not handed over`);
      else if (answers.has(message)) this.breaches.push(`two outcomes for ${message.id}`);
      else {
        answers.set(message, outcome);
        if (--lane.unanswered === 0) this.conclude(lane, answers);
      }
    });
  }

  private conclude(lane: LaneQueue, answers: ReadonlyMap<Message, Outcome>): void {
    const group = lane.messages.splice(0, lane.outstanding);
    lane.outstanding = 0;
    const again: Message[] = [];
    for (const message of group) {
      const outcome = answers.get(message) as Outcome;
      if (outcome.kind === 'unknown') this.unknowns.push(outcome);
      const probing = outcome.kind === 'rejected' && outcome.scope === 'group' && group.length > 1;
      if (probing) lane.limit = Math.max(1, Math.floor(group.length / 2));
      const missing = outcome.kind === 'rejected' && outcome.missingDestination === true;
      if (probing || outcome.kind === 'unknown' || (missing && this.patient)) again.push(message);
      else this.final.set(message, outcome);
    }
    lane.messages.unshift(...again);
    if (again.length > 0) lane.retryAt = performance.now() + RETRY_MS;
    queueMicrotask(this.pump);
  }
}
