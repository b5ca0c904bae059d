import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseSnapshot, readableSnapshot } from '../../../src/postgres/snapshot.ts';

test('P1 a snapshot that the server prints and does not read is made readable', () => {
  // Seen on PostgreSQL 18 after CREATE_REPLICATION_SLOT … EXPORT_SNAPSHOT beside writers that roll back.
  assert.equal(readableSnapshot('1498025:1498024:'), '1498025:1498025:');
  assert.equal(readableSnapshot('12:10:10,11'), '12:12:');
});

test('a snapshot that the server reads stays as it is', () => {
  for (const text of ['7:7:', '7:9:7,8', '3:4294967299:3,4294967298'])
    assert.equal(readableSnapshot(text), text);
});

test('what is no snapshot is refused', () => {
  for (const text of ['', '7', '7:', 'a:b:', '7:8:9;']) assert.throws(() => parseSnapshot(text), TypeError);
});
