-- depends_on: {{ ref('fct_interactions') }} {{ ref('int_items_daily') }}
-- Each feature row of a fixed sample equals what the events of the days before its instant give when counted one by
-- one: no row covers an event at or after its event_timestamp, and none misses one before it.
with

features as (

    select * from {{ ref('feat_item_windows') }}
    where {{ if_changed('item_id') }}
    order by hashtextextended(item_id, extract(epoch from event_timestamp)::bigint), item_id, event_timestamp
    limit {% if should_full_refresh() %}500{% else %}100{% endif %}

),

-- An incremental build recounts the days that it has counted already: one event at a time would be a scan of all.
days as (

    {% if should_full_refresh() %}
        select
            item_id,
            occurred_at,
            1 as interactions,
            rating as rating_sum,
            (rating is not null)::integer as rating_count,
            {{ utc_midnight('occurred_date + 1') }} as midnight

        from {{ ref('fct_interactions') }}
    {% else %}
        select
            item_id,
            {{ utc_midnight('active_date') }} as occurred_at,
            interactions,
            rating_sum,
            rating_count,
            {{ utc_midnight('active_date + 1') }} as midnight

        from {{ ref('int_items_daily') }}
    {% endif %}
    where item_id in (select item_id from features)

),

counted as (

    select
        features.item_id,
        features.event_timestamp,
        coalesce(
            sum(days.interactions) filter (where days.occurred_at >= features.event_timestamp - interval '1 day'), 0
        ) as events_1d,
        coalesce(
            sum(days.interactions) filter (where days.occurred_at >= features.event_timestamp - interval '7 days'), 0
        ) as events_7d,
        coalesce(
            sum(days.interactions) filter (where days.occurred_at >= features.event_timestamp - interval '30 days'), 0
        ) as events_30d,
        coalesce(sum(days.interactions), 0) as events_90d,
        coalesce(
            sum(
                days.interactions
                * power(0.5, extract(epoch from features.event_timestamp - days.midnight)::double precision / 2592000)
            ),
            0
        ) as decayed,
        coalesce(sum(days.interactions - days.rating_count), 0) as implicit_90d,
        sum(days.rating_sum) / nullif(sum(days.rating_count), 0) as mean_rating

    from features
    left join days
        on
            features.item_id = days.item_id
            and days.occurred_at < features.event_timestamp
            and days.occurred_at >= features.event_timestamp - interval '90 days'
    group by features.item_id, features.event_timestamp

)

select features.* from features
inner join counted using (item_id, event_timestamp)
where
    features.event_timestamp > {{ as_of() }}
    or features.item_events_1d != counted.events_1d
    or features.item_events_7d != counted.events_7d
    or features.item_events_30d != counted.events_30d
    or features.item_events_90d != counted.events_90d
    or features.item_implicit_90d != counted.implicit_90d
    or (features.item_recent_mean_rating is null) != (counted.mean_rating is null)
    or abs(features.item_recent_mean_rating - counted.mean_rating) > 1e-8
    or abs(features.item_events_decayed - counted.decayed) > 1e-6
