const DAY = /^(\d{4,})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(?:\+00)?$/;

let lastDay = '';
let lastDayMs = 0;

/**
 * Milliseconds since the epoch of a time as the relay's sessions print it (ISO, UTC), whole; NaN for anything else
 * (`infinity`, years BC). The general parser of the language takes many times as long for this form, once an event.
 */
export function parseUtcTimestamp(text: string): number {
  const day = text.slice(0, 11);
  if (day === lastDay && text.length > 18) return lastDayMs + timeOfDayMs(text);
  const match = DAY.exec(text);
  if (!match) return Number.NaN;
  const dayMs = Date.UTC(Number(match[1]), Number(match[2]) - 1, Number(match[3]));
  if (match[1]?.length === 4) {
    lastDay = day;
    lastDayMs = dayMs;
  }
  const [, , , , hour, minute, second, fraction = ''] = match;
  const millis = Number(fraction.padEnd(3, '0').slice(0, 3));
  return dayMs + ((Number(hour) * 60 + Number(minute)) * 60 + Number(second)) * 1000 + millis;
}

/** Of `YYYY-MM-DD HH:MM:SS[.f…]`, behind a day that was recognised before. */
function timeOfDayMs(text: string): number {
  const seconds = (two(text, 11) * 60 + two(text, 14)) * 60 + two(text, 17);
  let millis = 0;
  if (text.charCodeAt(19) === 0x2e) {
    let weight = 100;
    for (let at = 20; weight >= 1; at++, weight /= 10) {
      const digit = text.charCodeAt(at) - 0x30;
      if (!(digit >= 0 && digit <= 9)) break;
      millis += digit * weight;
    }
  }
  return seconds * 1000 + millis;
}

function two(text: string, at: number): number {
  return (text.charCodeAt(at) - 0x30) * 10 + text.charCodeAt(at + 1) - 0x30;
}
