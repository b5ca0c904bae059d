/**
 * Brokers of the tests live for seconds or minutes: started without the optimising compiler they cost half of the time,
 * and the machine's cores are what the tests wait for.
 */
export const SHORT_LIVED_JAVA = '-XX:TieredStopAtLevel=1';
