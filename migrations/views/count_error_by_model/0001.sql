-- How far our count of what was sent is from the provider's, in percent of that
CREATE VIEW {count_error_by_model} (
    model, calls, window_tokens, input_tokens, mean_error_percent, worst_undercount_percent,
    worst_overcount_percent
) AS
-- Whole millionths of a percent: fractions would round otherwise on SQLite, where they are binary. Half a
-- hundredth is rounded away from zero.
WITH compared AS (
    SELECT model, window_tokens, input_tokens,
        CAST(100000000 AS bigint) * (window_tokens - input_tokens) / input_tokens AS error
    FROM {llm_calls}
    WHERE status = 'ok' AND window_tokens IS NOT NULL AND input_tokens > 0
), summed AS (
    SELECT model, count(*) AS calls, CAST(sum(window_tokens) AS bigint) AS window_tokens,
        CAST(sum(input_tokens) AS bigint) AS input_tokens, CAST(sum(error) AS bigint) / count(*) AS mean,
        min(CASE WHEN error < 0 THEN error ELSE 0 END) AS lowest,
        max(CASE WHEN error > 0 THEN error ELSE 0 END) AS highest
    FROM compared GROUP BY model
)
SELECT model, calls, window_tokens, input_tokens,
    round((mean + CASE WHEN mean < 0 THEN -5000 ELSE 5000 END) / 10000 / 100.0, 2),
    round((lowest + CASE WHEN lowest < 0 THEN -5000 ELSE 5000 END) / 10000 / 100.0, 2),
    round((highest + CASE WHEN highest < 0 THEN -5000 ELSE 5000 END) / 10000 / 100.0, 2)
FROM summed
