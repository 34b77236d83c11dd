-- What a running build has printed so far, in pieces, for those who wait for it elsewhere. Operational: it goes when the
-- build has ended, and its log is a blob.
CREATE TABLE live_log (
    component TEXT NOT NULL,
    number BIGINT NOT NULL,
    part TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    at_byte BIGINT NOT NULL,
    size BIGINT NOT NULL,
    piece TEXT NOT NULL,
    PRIMARY KEY (component, number, part, attempt, at_byte)
);
