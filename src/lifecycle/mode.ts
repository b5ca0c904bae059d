/** What the relay is doing. `connecting`: it leads, and no event can flow yet, or no more. */
export type Mode =
  | 'starting'
  | 'connecting'
  | 'standby'
  | 'streaming'
  | 'polling'
  | 'halted'
  | 'draining'
  | 'stopped';

/** What may happen to it, in any mode. */
export type Happening =
  | 'another-leads'
  | 'leads'
  | 'streams'
  | 'polls'
  /** By an error that passes, or that nobody understands. */
  | 'session-ends'
  | 'needs-a-person'
  | 'stop'
  | 'stopped';

const WORKING = { 'another-leads': 'standby', 'needs-a-person': 'halted', stop: 'draining' } as const;

/** What is not named changes nothing. */
const TRANSITIONS: Readonly<Record<Mode, Partial<Record<Happening, Mode>>>> = {
  // Until the first success an error that needs a person ends the process.
  starting: { ...WORKING, leads: 'connecting' },
  connecting: { ...WORKING, streams: 'streaming', polls: 'polling' },
  standby: { ...WORKING, leads: 'connecting', 'session-ends': 'connecting' },
  streaming: { ...WORKING, polls: 'polling', 'session-ends': 'connecting' },
  polling: { ...WORKING, streams: 'streaming', 'session-ends': 'connecting' },
  halted: { ...WORKING, leads: 'connecting', 'session-ends': 'connecting' },
  // Whatever ends now was meant to end.
  draining: { stopped: 'stopped' },
  stopped: {},
};

/** The whole state machine of the modes. Pure and total. */
export function nextMode(mode: Mode, happening: Happening): Mode {
  return TRANSITIONS[mode][happening] ?? mode;
}
