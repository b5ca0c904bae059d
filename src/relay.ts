import { Broker } from './broker.ts';
import type { CarriedProgress } from './carried.ts';
import type { Config } from './config/config.ts';
import { RelayError } from './errors/errors.ts';
import { messageOf } from './errors/thrown.ts';
import { classify } from './errors/policy.ts';
import { Backoff } from './lifecycle/backoff.ts';
import { Leadership } from './lifecycle/leadership.ts';
import { readClocks, type Lease } from './lifecycle/lease.ts';
import { startHttp, type Exhibits, type HttpServer } from './observe/http.ts';
import { DatabaseClock } from './observe/lag.ts';
import type { Logger } from './observe/log.ts';
import { createMetrics } from './observe/metrics.ts';
import { Monitor } from './observe/monitor.ts';
import { Observer } from './observe/observer.ts';
import { StreamFailures } from './pipeline/capture/unreadable.ts';
import { createRouter } from './pipeline/envelope/router.ts';
import type { createPublisher } from './pipeline/publish/create-publisher.ts';
import { ProgressStore } from './pipeline/settle/progress.ts';
import { Session, type SessionEnd } from './session.ts';
import { SlotKeeper } from './slot-keeper.ts';
import type { Stage } from './stage.ts';
import { aborted, pause } from './lifecycle/wait.ts';

export interface RelayOptions {
  readonly config: Config;
  readonly log: Logger;
  readonly version: string;
  /** The first SIGTERM: drain. */
  readonly stop: AbortSignal;
  /** Another way to the broker than the configured one: the demo reads what would go to standard output. */
  readonly createPublisher?: typeof createPublisher;
}

export interface RelayEnd {
  /** Sends without an answer, or settled events that could not be written: they will be delivered again. */
  readonly unknown: number;
  /** The drain went to its end: written, and confirmed by the slot. */
  readonly clean: boolean;
}

/** A session that lasted so long was no false start. */
const STABLE_SESSION_MS = 10_000;
/** A relay that waits for a person looks again this often. */
const HALT_MS = 30_000;
/** Meanwhile it leaves the lead to whoever stands by. */
const YIELD_MS = 2_000;

/**
 * Composition root: builds the parts in the order of the data, runs one session after another, drains.
 *
 * The modes and their changes are in lifecycle/mode.ts. An error that needs a person ends the process
 * while nothing has worked yet and it never stood by, and later means `halted`: metrics stay up and every HALT_MS it is tried again with the
 * secrets read anew.
 */
export class Relay {
  readonly observer: Observer;
  private readonly options: RelayOptions;
  private readonly monitor: Monitor;
  private readonly backoff = new Backoff({ firstMs: 100, maxMs: 10_000 });
  private readonly leadership: Leadership;
  private lease: Lease | undefined;
  private stage: Stage | undefined;
  /** Since when no stream has brought what the log holds. */
  private streamGoneMs: number | undefined = performance.now();
  private carried: CarriedProgress | undefined;
  private readonly failures = new StreamFailures();
  private readonly broker: Broker;
  private endSession: () => void = () => undefined;
  private ready = false;
  private first = true;
  /** It has waited for the lead: what it fails at then is an outage that another relay met first, not its own setting. */
  private stoodBy = false;
  private unanswered = 0;
  private unknown = 0;
  private clean = true;

  constructor(options: RelayOptions) {
    this.options = options;
    const { log, version, config } = options;
    this.observer = new Observer({ log, metrics: createMetrics({ version }), clock: new DatabaseClock() });
    this.monitor = new Monitor(config, this.observer, () => ({
      oldestUnsettledCommitMs: this.stage?.options.settlement.oldest?.committedAtMs,
      inFlightEvents: this.stage?.pipeline.window.events ?? 0,
      inFlightBytes: this.stage?.pipeline.window.bytes ?? 0,
      streamGoneMs: this.readStreamGoneMs(),
      leading: this.stage !== undefined,
    }));
    this.broker = new Broker({
      config,
      observer: this.observer,
      create: options.createPublisher,
      mayStart: this.mayStart,
      onRoom: () => this.stage?.pipeline.wake(),
      onFatal: () => this.endSession(),
    });
    this.leadership = new Leadership({
      config,
      onStandby: () => {
        this.ready = true;
        this.stoodBy = true;
        this.observer.tell('another-leads', 'another-leader');
      },
      onRenewed: () => this.stage?.pipeline.wake(),
      onUnrenewed: (error) => this.tellUnrenewed(error),
      onLost: () => {
        this.observer.tell('another-leads', 'lease-lost');
        // Also when its session ended before this was known: whoever leads now takes care of what it left open.
        this.unanswered = 0;
        this.unknown = 0;
        this.endSession();
      },
    });
  }

  get lagSeconds(): number {
    return this.monitor.lagSeconds();
  }

  /** Until stopped; rejects with a RelayError of consequence `stop` when nothing ever worked. */
  async run(): Promise<RelayEnd> {
    const { config, log, stop } = this.options;
    const background = new AbortController();
    let http: HttpServer | undefined;
    let monitoring: Promise<void> | undefined;
    try {
      http = await startHttp(config.http, this.exhibits());
      log.info('metrics and health are served', { host: config.http.host, port: http.port });
      monitoring = this.monitor.run(background.signal);
      stop.addEventListener('abort', () => this.observer.tell('stop', 'signal'), { once: true });
      while (!stop.aborted) await this.lead();
    } finally {
      await this.broker.close();
      await this.leadership.release();
      background.abort();
      await monitoring;
      this.observer.tell('stopped', 'signal');
      await http?.close();
    }
    return { unknown: this.unknown, clean: this.clean };
  }

  private async lead(): Promise<void> {
    const { stop, log } = this.options;
    const lease = await this.becomeLeader();
    if (!lease) return;
    const startedMs = performance.now();
    const end = await this.runSession(lease);
    this.carried = end.carried;
    this.note(end);
    const brokerError = this.broker.error;
    const error = brokerError ?? end.error;
    if (lease.ended) {
      await this.broker.close();
      // Whoever leads now takes care of it.
      this.unanswered = 0;
      this.unknown = 0;
      if (!stop.aborted) log.warn('another relay leads now; this one stands by', { error });
      return;
    }
    if (error === undefined) return;
    if (stop.aborted) {
      if (end.led) log.warn('the drain did not come to its end', { error });
      return;
    }
    if (brokerError) await this.broker.close();
    // Not when a stage begins: what fails right after it would be tried again ten times a second.
    if (performance.now() - startedMs > STABLE_SESSION_MS) this.backoff.reset();
    await this.afterError(error, brokerError ? this.broker.worked || this.stoodBy : this.ready);
  }

  /** Stands by until the lease is ours. Undefined when stopped, or after an error that was dealt with. */
  private async becomeLeader(): Promise<Lease | undefined> {
    try {
      return await this.acquire(this.options.stop);
    } catch (error) {
      await this.afterError(error, this.ready);
      return undefined;
    }
  }

  private async acquire(signal: AbortSignal): Promise<Lease | undefined> {
    const before = this.lease;
    if (before?.ended === false) return before;
    const lease = await this.leadership.acquire(signal);
    // Somebody led in between: what this process settled before is written, or was delivered again.
    if (before && lease && lease.token !== before.token + 1n) this.carried = undefined;
    if (lease) this.lease = lease;
    return lease;
  }

  private async runSession(lease: Lease): Promise<SessionEnd> {
    const { config, stop } = this.options;
    const ending = new AbortController();
    this.endSession = () => ending.abort();
    // While connecting, why it failed before is worth more.
    if (this.observer.mode !== 'connecting') this.observer.tell('leads', 'lease');
    // Either may have happened while no session ran.
    if (this.broker.error || lease.ended) ending.abort();
    const sessionStop = AbortSignal.any([stop, ending.signal]);
    const publisher = await this.broker.open();
    const connecting = this.broker.connect(publisher, sessionStop);
    const session = new Session({
      config,
      publisher,
      address: createRouter(config),
      observer: this.observer,
      leaseToken: lease.token,
      mayStart: this.mayStart,
      stop: sessionStop,
      carried: this.carried,
      failures: this.failures,
      onStage: (stage) => this.onStage(stage),
      first: this.first,
      onConnected: () => {
        this.ready = true;
        this.first = false;
      },
    });
    const end = await session.run();
    ending.abort();
    await connecting;
    return end;
  }

  private readonly mayStart = (): boolean => this.lease?.holds(readClocks()) ?? false;

  private onStage(stage: Stage | undefined): void {
    // Whether the one that ends had come so far: nobody may have asked in its life.
    this.readStreamGoneMs();
    this.stage = stage;
    if (stage?.options.phase !== 'complete') this.streamGoneMs ??= performance.now();
    if (!stage) return;
    // Also tells the change log that the trouble is over: the next one must not pass for a repetition.
    this.observer.changes.report('session', 'delivering', {
      level: this.backoff.attempts > 0 ? 'info' : 'debug',
      message: 'connected to PostgreSQL, delivering',
    });
  }

  /** A stream that has just begun says nothing: the server may decode for a while what was written without one. */
  private readStreamGoneMs(): number | undefined {
    const { phase, settlement } = this.stage?.options ?? {};
    if (phase === 'complete' && settlement?.tellsLag) this.streamGoneMs = undefined;
    return this.streamGoneMs;
  }

  /** What would be delivered again if the process ended now; the next session may take care of it. */
  private note(end: SessionEnd): void {
    this.unanswered = (end.led ? 0 : this.unanswered) + end.unknown;
    this.unknown = this.unanswered + (end.carried?.unwritten.length ?? 0);
    this.clean = !(end.led && this.options.stop.aborted && end.error !== undefined);
  }

  private async afterError(failure: unknown, worked: boolean): Promise<void> {
    const { stop, log } = this.options;
    const verdict = classify(failure);
    const { consequence, code, advice } = verdict;
    if (consequence === 'stop') {
      if (!worked) throw asRelayError(failure);
      this.observer.tell('needs-a-person', code);
      log.error('halted: this needs a person', { error: failure, code, advice, nextTryInMs: HALT_MS });
      await this.halt();
      return;
    }
    this.observer.tell('session-ends', code);
    this.observer.changes.report('session', code, {
      level: 'warn',
      message: 'the session ended; it is opened again',
      fields: { error: failure, code, advice },
    });
    await this.backoff.wait(stop);
  }

  private tellUnrenewed(error: unknown): void {
    const { code, advice } = classify(error);
    this.observer.changes.report('lease', code, {
      level: 'warn',
      message: 'the lease was not renewed; it is tried again, and once it has ended nothing is sent',
      fields: { error, code, advice },
    });
  }

  /** Another relay may have what is missing here; if there is none, the slot is guarded, since nobody reads it. */
  private async halt(): Promise<void> {
    const { config, stop } = this.options;
    const over = new AbortController();
    this.endSession = () => over.abort();
    const ending = AbortSignal.any([stop, over.signal, AbortSignal.timeout(HALT_MS)]);
    await this.broker.close();
    await this.leadership.release();
    await pause(YIELD_MS, ending);
    const lease = await this.acquire(ending).catch(() => undefined);
    if (lease) {
      const store = new ProgressStore(config, lease.token);
      const { observer, failures } = this;
      const unused = { stage: () => undefined, onChecked: () => undefined };
      const keeper = new SlotKeeper({ config, store, observer, failures, ...unused });
      await keeper.guard.whileHalted(ending);
    }
    await aborted(ending);
  }

  private exhibits(): Exhibits {
    const { observer } = this;
    return {
      live: () => ({ ok: true, reason: 'the event loop answers' }),
      // Latched: in a sidecar an unready container takes the user's service out of its load balancer.
      ready: () =>
        this.ready || observer.mode === 'halted'
          ? { ok: true, reason: observer.mode }
          : { ok: false, reason: 'starting' },
      status: () => ({
        mode: observer.mode,
        reason: observer.reason,
        brokerConnected: this.broker.connected,
        lagSeconds: this.monitor.lagSeconds(),
        pendingEvents: this.monitor.pendingEvents,
        inFlightEvents: this.stage?.pipeline.window.events ?? 0,
        notedPosition: this.stage?.notedPosition ?? null,
        slot: this.options.config.slotName,
        version: this.options.version,
      }),
      metrics: () => observer.exposition(this.mayStart()),
    };
  }
}

function asRelayError(error: unknown): RelayError {
  if (error instanceof RelayError) return error;
  const { consequence, code, advice } = classify(error);
  const message = messageOf(error);
  return new RelayError(consequence, code, message, { advice, cause: error });
}
