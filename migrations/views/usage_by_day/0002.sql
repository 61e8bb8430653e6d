-- What each model cost, by the day (UTC)
CREATE VIEW {usage_by_day} (
    day, model, calls, failed_calls, window_tokens, input_tokens, cached_tokens, output_tokens,
    reasoning_tokens, cache_write_tokens
) AS
SELECT {day(created_at)}, model, count(*), sum(CASE status WHEN 'ok' THEN 0 ELSE 1 END),
    CAST(sum(window_tokens) AS bigint), CAST(sum(input_tokens) AS bigint),
    CAST(sum(cached_tokens) AS bigint), CAST(sum(output_tokens) AS bigint),
    CAST(sum(reasoning_tokens) AS bigint), CAST(sum(cache_write_tokens) AS bigint)
FROM {llm_calls}
GROUP BY {day(created_at)}, model
