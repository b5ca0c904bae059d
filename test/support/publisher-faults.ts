import assert from 'node:assert/strict';
import { assertAllDurable, assertArrived, series, untilFinal } from './publisher-subject.ts';
import type { ContractHarness, Run } from './publisher-subject.ts';
import { until } from './until.ts';

/** What the contract promises when the network or the broker fails. */

export const cutUnderLoad =
  (harness: ContractHarness): Run =>
  async (subject, driver) => {
    const messages = series(subject, harness.many ?? 5000, { keys: 50 });
    const portion = Math.ceil(messages.length / 10);
    for (let i = 0; i < messages.length; i += portion) {
      driver.send(messages.slice(i, i + portion));
      // While some are durable and some in flight.
      await until(() => driver.final.size > i, {
        intervalMs: 0,
        timeoutMs: 30_000,
        what: 'the first of a portion',
      });
      subject.network?.cut();
    }
    await untilFinal(driver, messages);
    assertAllDurable(driver, messages);
    await assertArrived(subject, driver, messages);
    assert.ok(
      driver.connections.includes(false) || driver.unknowns.length === 0,
      'a lost connection was reported',
    );
  };

export const blackHole =
  (harness: ContractHarness): Run =>
  async (subject, driver) => {
    const before = series(subject, 100, { keys: 10, prefix: 'before-' });
    driver.send(before);
    await untilFinal(driver, before);
    const unknowns = driver.unknowns.length;
    subject.network?.blackHole();
    const during = series(subject, 100, { keys: 10, prefix: 'during-' });
    driver.send(during);
    const timeoutMs = (harness.answerDeadlineMs ?? 10_000) + 20_000;
    await until(() => driver.connections.at(-1) === false, { timeoutMs, what: 'the silence noticed' });
    assert.ok(driver.unknowns.length > unknowns, 'what was outstanding is unknown');
    assert.equal(driver.publisher.room(), 0, 'no room without a connection');
    const rooms = driver.rooms;
    subject.network?.heal();
    await untilFinal(driver, during);
    assertAllDurable(driver, during);
    assert.ok(driver.rooms > rooms, 'onRoom was called');
    assert.equal(driver.connections.at(-1), true);
    await assertArrived(subject, driver, [...before, ...during]);
  };

export const brokerKilled =
  (harness: ContractHarness): Run =>
  async (subject, driver) => {
    const messages = series(subject, harness.many ?? 5000, { keys: 50 });
    driver.send(messages.slice(0, messages.length / 2));
    await until(() => driver.final.size > 0, { intervalMs: 0, timeoutMs: 30_000, what: 'the first outcome' });
    await subject.broker?.kill();
    driver.send(messages.slice(messages.length / 2));
    await until(() => driver.connections.at(-1) === false, { what: 'the loss of the broker noticed' });
    assert.equal(driver.publisher.room(), 0, 'no room without a broker');
    // RabbitMQ answers before its bindings are back.
    driver.patient = true;
    await subject.broker?.start();
    // A RabbitMQ that starts beside other servers, and confirms one message of a key after the other.
    await untilFinal(driver, messages, 120_000);
    assertAllDurable(driver, messages);
    await assertArrived(subject, driver, messages);
  };

export const closeInSilence = (): Run => async (subject, driver) => {
  const messages = series(subject, 50, { keys: 5 });
  subject.network?.blackHole();
  driver.send(messages);
  driver.stop();
  const started = performance.now();
  await driver.publisher.close(300);
  const took = performance.now() - started;
  assert.ok(took < 3000, `closed in ${took} ms`);
  assert.ok(driver.unknowns.length > 0, 'what was outstanding is unknown');
  assert.equal(driver.publisher.room(), 0);
};
