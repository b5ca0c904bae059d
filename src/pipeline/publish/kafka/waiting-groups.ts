import type { Outcome } from '../publisher.ts';
import type { Group } from './grouping.ts';
import { topicOutcome, unknown } from './outcome.ts';
import type { TopicProblem, TopicTable } from './topics.ts';

/** A topic that the cluster is just creating is missing in the first answers. */
const ASK_BEFORE_MISSING = 3;

export interface Judged {
  readonly waiting: Group[];
  readonly answered: { readonly group: Group; readonly outcome: Outcome; readonly errorCode?: number }[];
}

/** Groups of topics that can't be sent to are answered, nobody else's. */
export function judgeProblems(
  groups: readonly Group[],
  problems: ReadonlyMap<string, TopicProblem>,
  topics: TopicTable,
): Judged {
  const judged: Judged = { waiting: [], answered: [] };
  for (const group of groups) {
    const problem = problems.get(group.topic);
    if (problem === undefined || topics.get(group.topic)?.missing === false) {
      judged.waiting.push(group);
      continue;
    }
    group.asked++;
    const { errorCode } = problem;
    const outcome = topicOutcome(group.topic, errorCode);
    const creating = outcome.kind === 'unknown' || errorCode === 3;
    if (creating && group.asked < ASK_BEFORE_MISSING) judged.waiting.push(group);
    else judged.answered.push({ group, outcome, errorCode });
  }
  return judged;
}

/**
 * What was handed over before `sinceMs` and found no broker is answered, so that nothing waits unseen. `unreachable`: what
 * keeps us from brokers that the others tell of; the commonest cause are advertised addresses that are not ours to reach.
 */
export function judgeAge(groups: readonly Group[], sinceMs: number, unreachable: readonly string[]): Judged {
  const judged: Judged = { waiting: [], answered: [] };
  for (const group of groups) {
    const reason = [`No broker leads ${group.topicPartition} or it can't be reached.`, ...unreachable].join(
      ' ',
    );
    if (group.since >= sinceMs) judged.waiting.push(group);
    else judged.answered.push({ group, outcome: unknown('no-leader', reason) });
  }
  return judged;
}
