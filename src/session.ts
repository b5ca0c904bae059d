import type { Client } from 'pg';
import { writeCarried, type CarriedProgress } from './carried.ts';
import type { Config } from './config/config.ts';
import type { RelayError } from './errors/errors.ts';
import { classify } from './errors/policy.ts';
import { DrainLimit } from './lifecycle/drain-limit.ts';
import { faultPoint } from './lifecycle/fault-point.ts';
import type { Observer } from './observe/observer.ts';
import { handOver, type MadeSlot } from './pipeline/capture/handover.ts';
import type { Preflight } from './pipeline/capture/preflight.ts';
import { TablePass } from './pipeline/capture/polling/table-pass.ts';
import { BEFORE_ALL } from './pipeline/capture/polling/table-reader.ts';
import { untilStandbysHave } from './pipeline/capture/streaming/failover-slot.ts';
import { terminateHolder } from './pipeline/capture/streaming/slot.ts';
import type { StreamFailures } from './pipeline/capture/unreadable.ts';
import type { Publisher } from './pipeline/publish/publisher.ts';
import type { Address } from './pipeline/envelope/router.ts';
import { assertSameCleanup } from './pipeline/settle/cleanup-change.ts';
import { ProgressStore, type Progress } from './pipeline/settle/progress.ts';
import type { Identity } from './pipeline/settle/settled-runs.ts';
import { BEYOND_EVERYTHING, Settlement } from './pipeline/settle/settlement.ts';
import { pollTable, type PollingOptions } from './polling.ts';
import { disconnect } from './postgres/connect.ts';
import { readEndOfLog, readInstallation, readTimeline } from './postgres/log-position.ts';
import { connectSession } from './session-connection.ts';
import { SlotKeeper, type StreamingStart } from './slot-keeper.ts';
import { lookAtTable, refuseSlot, type TableLook } from './table-look.ts';
import { Stage, type StageEnd, type StageOptions } from './stage.ts';

export interface SessionOptions {
  readonly config: Config;
  readonly publisher: Publisher;
  readonly address: Address;
  readonly observer: Observer;
  /** Of the lease under which this process leads. */
  readonly leaseToken: bigint;
  /** Whether the lease holds at this moment. */
  readonly mayStart: () => boolean;
  /** SIGTERM: stop reading, wait for what is with the broker, write, acknowledge, leave. */
  readonly stop: AbortSignal;
  /** No session of this process has got as far as `onConnected`. */
  readonly first: boolean;
  /** From a session of this process that ended by an error. */
  readonly carried: CarriedProgress | undefined;
  readonly failures: StreamFailures;
  /** The stage that runs now, for metrics and for waking it when the broker has room. */
  readonly onStage: (stage: Stage | undefined) => void;
  /** The database let us in and is as it should be: from here on an error is an outage, not a wrong setting. */
  readonly onConnected: () => void;
}

export interface SessionEnd {
  readonly carried: CarriedProgress | undefined;
  /** Sends without an answer, sent again by whoever comes next; those of polling only until the stream begins. */
  readonly unknown: number;
  readonly error: unknown;
  /** Something was read and sent, or could have been. */
  readonly led: boolean;
}

/** One period of leading: from the first connection to its loss, or to the end of the process. */
export class Session {
  private options: SessionOptions;
  private store: ProgressStore;
  private readonly keeper: SlotKeeper;
  private carried: CarriedProgress | undefined;
  /** Rows of delivered events that were not visible yet. */
  private unseen: readonly Identity[] = [];
  private timeline = '';
  private readonly drain: DrainLimit;
  private stage: Stage | undefined;
  private unknown = 0;
  private led = false;
  /** Cuts every connection of this session. */
  private readonly connections = new AbortController();

  constructor(options: SessionOptions) {
    this.options = options;
    this.store = new ProgressStore(options.config, options.leaseToken);
    this.keeper = new SlotKeeper({
      ...options,
      store: this.store,
      stage: () => this.stage,
      onChecked: options.onConnected,
    });
    this.carried = options.carried;
    this.drain = new DrainLimit(options.stop, options.config.shutdownTimeoutMs, () =>
      this.connections.abort(),
    );
  }

  /** Never rejects: what must be carried over goes with the error. */
  async run(): Promise<SessionEnd> {
    let error: unknown;
    try {
      await this.lead();
    } catch (thrown) {
      error = thrown;
    } finally {
      this.drain.end();
      this.connections.abort();
      await this.keeper.guard.unwatchMade();
    }
    return { carried: this.carried, unknown: this.unknown, error, led: this.led };
  }

  private async lead(): Promise<void> {
    const { config, stop } = this.options;
    const client = await this.unlessStopped(
      connectSession(config, { signal: this.connections.signal, attempt: stop }),
    );
    if (!client) return;
    try {
      await this.deliver(client);
    } finally {
      await disconnect(client);
    }
  }

  private async deliver(client: Client): Promise<void> {
    const { stop, publisher, observer } = this.options;
    const { guard } = this.keeper;
    const look = async (): Promise<TableLook> =>
      await lookAtTable(client, this.options.config, observer.changes);
    const { table, config, lack } = await guard.beside(look);
    await this.store.claim(client);
    if (this.options.first) await guard.beside(async () => await assertSameCleanup(client, config, table));
    publisher.lead?.(await readInstallation(client, config.slotName));
    this.timeline = await readTimeline(client);
    if (lack) this.goByPlace(config);
    if (config.source === 'polling') {
      await this.poll(client, { reason: 'configured', makeSlot: undefined, failedBefore: false });
      return;
    }
    if (lack) {
      const onAdopted = (error: RelayError): void => this.stage?.fail(error);
      const makeSlot = async (signal: AbortSignal): Promise<never> =>
        await refuseSlot(client, config, { onAdopted, signal });
      await this.poll(client, { reason: lack.code, makeSlot, failedBefore: true });
      return;
    }
    let start: StreamingStart;
    try {
      start = await guard.beside(async () => await this.keeper.findStart(client, table, stop));
    } catch (error) {
      if (stop.aborted) return await this.writeCarriedAtStop(client);
      if (!this.keeper.givesWay(error)) throw error;
      // Once there is a slot, the next session begins with it.
      await this.poll(client, { reason: classify(error).code, makeSlot: this.makeSlot, failedBefore: true });
      return;
    }
    const begun = await this.startFrom(client, start);
    if (!begun) return;
    await this.writeCarried(client, begun);
    if (begun.handover === 'table') {
      await guard.during(client, async () => await this.deliverTable(client, begun));
      if (stop.aborted) return;
      await this.completeHandover(client, begun);
    }
    // The row as the table pass left it.
    const progress = begun.handover === 'table' ? ((await this.store.read(client)) as Progress) : begun;
    await guard
      .during(client, async () => await this.deliverStream(client, progress, start.checked))
      .catch(async (error: unknown) => {
        throw await this.keeper.giveUpUnreadable(
          client,
          error,
          this.carried?.position ?? progress.durableLsn,
        );
      });
  }

  private async startFrom(
    client: Client,
    { progress, decision }: StreamingStart,
  ): Promise<Progress | undefined> {
    const { config, stop, observer } = this.options;
    if (decision.kind !== 'hand-over') return progress;
    const { reason } = decision;
    observer.log.info('making a replication slot; this waits for the transactions that run now', {
      slot: config.slotName,
      reason,
    });
    if (this.keeper.mayPoll)
      return await this.poll(client, { reason, makeSlot: this.makeSlot, failedBefore: false });
    return await this.unlessStopped(
      this.makeSlot(stop).then((made) =>
        handOver(this.store, client, made, { before: progress, polled: [] }),
      ),
    );
  }

  private readonly makeSlot = (signal: AbortSignal): Promise<MadeSlot> =>
    this.keeper.makeSlot(signal, this.connections.signal);

  /** Delivers from the table alone. Resolves with the hand-over's progress once there is a slot to stream from. */
  private async poll(
    client: Client,
    given: { reason: string } & Pick<PollingOptions, 'makeSlot' | 'failedBefore'>,
  ): Promise<Progress | undefined> {
    const { observer } = this.options;
    const before = await this.store.read(client);
    // Also where a person has written it over the row of a slot, as the advice for a possible loss says.
    const begun = before?.handover === 'polling' && before.slotCreatedLsn === 0n;
    const progress = begun ? before : await this.store.beginPolling(client);
    await this.keeper.leaveSlot(client);
    this.options.onConnected();
    await this.writeCarried(client, progress);
    observer.tell('polls', given.reason);
    const polled = await pollTable({
      ...this.options,
      drainLeftMs: this.drain.leftMs,
      client,
      store: this.store,
      makeSlot: given.makeSlot,
      failedBefore: given.failedBefore,
      unseen: this.unseen,
      onSlotFailure: (error) => {
        const { code, advice } = classify(error);
        this.keeper.tellObstacle(error, code, advice);
        observer.tell('polls', code);
      },
      onSlotUnused: () => this.keeper.dropUnused(client),
      runStage: (stage) => this.runStage(stage),
    });
    if (!polled) return undefined;
    // All of it is written: the stage would have failed otherwise.
    this.unseen = this.carried?.unseen ?? [];
    this.carried = undefined;
    return await handOver(this.store, client, polled.made, { before: undefined, polled: polled.beyond });
  }

  /** What an earlier session of this process settled and could not write: its rows go before they are read again. */
  private async writeCarried(client: Client, progress: Progress): Promise<void> {
    const { carried, store } = this;
    if (!carried) return;
    if (carried.timeline !== this.timeline) {
      this.carried = undefined;
      return;
    }
    ({ carried: this.carried, unseen: this.unseen } = await writeCarried(client, store, {
      carried,
      progress,
    }));
  }

  /** Nothing was found out yet, but the connection is there: what an earlier session settled must not be sent again. */
  private async writeCarriedAtStop(client: Client): Promise<void> {
    const progress = await this.store.read(client);
    if (progress) await this.writeCarried(client, progress);
  }

  private async deliverTable(client: Client, progress: Progress): Promise<void> {
    const { config, observer, stop } = this.options;
    observer.tell('polls', 'hand-over');
    // Of what was committed before the slot, too, nothing is published that a failover takes back.
    if (config.slotFailover) await untilStandbysHave(client, await readEndOfLog(client), stop);
    if (stop.aborted) return;
    const afterSeq = Math.max(progress.tableSeq, Number(this.carried?.position ?? BEFORE_ALL));
    const source = new TablePass({
      config,
      client,
      rows: {
        snapshot: progress.snapshot ?? '',
        horizon: config.cleanup === 'none' ? progress.horizon : undefined,
      },
      afterSeq,
    });
    const settlement = new Settlement({
      position: BigInt(afterSeq),
      before: this.carried?.beyond ?? [],
      beforeUntil: BEYOND_EVERYTHING,
      unseen: this.unseen,
    });
    await this.runStage(this.stageOf(client, progress, { phase: 'table', source, settlement }));
  }

  private async completeHandover(client: Client, { slotCreatedLsn }: Progress): Promise<void> {
    await this.store.completeHandover(client, slotCreatedLsn);
    this.carried = undefined;
    faultPoint('after-handover-complete');
  }

  private async deliverStream(client: Client, progress: Progress, checked: Preflight): Promise<void> {
    const { observer, stop } = this.options;
    const position =
      this.carried && this.carried.position > progress.durableLsn
        ? this.carried.position
        : progress.durableLsn;
    const settlement = new Settlement({
      position,
      before: this.carried?.beyond ?? progress.beyond,
      beforeUntil: await readEndOfLog(client),
      unseen: this.unseen,
    });
    await terminateHolder(client, this.store.slot);
    const stream = await this.unlessStopped(this.keeper.openStream(position, checked, stop));
    if (!stream) return;
    try {
      observer.tell('streams', 'slot-trusted');
      await this.runStage(this.stageOf(client, progress, { phase: 'complete', source: stream, settlement }));
      if (stop.aborted) await this.keeper.confirm(client, settlement.written, this.drain.leftMs());
    } finally {
      await stream.close();
    }
  }

  private stageOf(
    client: Client,
    { slotCreatedLsn }: Progress,
    what: Pick<StageOptions, 'phase' | 'source' | 'settlement'>,
  ): Stage {
    const { options, store } = this;
    return new Stage({ ...options, ...what, drainLeftMs: this.drain.leftMs, client, store, slotCreatedLsn });
  }

  private async runStage(stage: Stage): Promise<StageEnd> {
    this.led = true;
    this.stage = stage;
    this.options.onStage(stage);
    const end = await stage.run();
    this.stage = undefined;
    this.options.onStage(undefined);
    const { phase, slotCreatedLsn } = stage.options;
    this.unknown = (phase === 'complete' ? 0 : this.unknown) + end.unknown;
    this.carried = { ...end.carried, phase, slotCreatedLsn, timeline: this.timeline };
    if (end.error !== undefined) throw end.error;
    return end;
  }

  /** Rows are told by their place in the file: the table can be polled, and nothing else. */
  private goByPlace(config: Config): void {
    this.options = { ...this.options, config };
    this.store = new ProgressStore(config, this.options.leaseToken);
    // A place says nothing about rows that have numbers, once they have been given some.
    this.timeline += ' by place';
  }

  /** What the work gives; undefined when it failed because of the stop. */
  private async unlessStopped<T>(work: Promise<T>): Promise<T | undefined> {
    try {
      return await work;
    } catch (error) {
      if (!this.options.stop.aborted) throw error;
      return undefined;
    }
  }
}
