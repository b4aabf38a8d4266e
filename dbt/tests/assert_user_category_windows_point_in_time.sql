-- Each feature row of a fixed sample equals what the events of the days before its instant give when counted one by
-- one: no row covers an event at or after its event_timestamp, and none misses one before it.
with

features as (

    select * from {{ ref('feat_user_category_windows') }}
    order by
        hashtextextended(user_id || category, extract(epoch from event_timestamp)::bigint),
        user_id,
        category,
        event_timestamp
    limit 300

),

events as (

    select
        interactions.user_id,
        interactions.occurred_at,
        interactions.rating,
        items.categories

    from {{ ref('fct_interactions') }} as interactions
    inner join {{ ref('dim_items') }} as items using (item_id)
    where interactions.user_id in (select user_id from features)

),

counted as (

    select
        features.user_id,
        features.category,
        features.event_timestamp,
        count(events.occurred_at) filter (
            where events.occurred_at >= features.event_timestamp - interval '1 day'
        ) as events_1d,
        count(events.occurred_at) filter (
            where events.occurred_at >= features.event_timestamp - interval '7 days'
        ) as events_7d,
        count(events.occurred_at) filter (
            where events.occurred_at >= features.event_timestamp - interval '30 days'
        ) as events_30d,
        count(events.occurred_at) as events_90d,
        count(events.occurred_at) filter (where events.rating is null) as implicit_90d,
        avg(events.rating) as mean_rating

    from features
    left join events
        on
            features.user_id = events.user_id
            and features.category = any(events.categories)
            and events.occurred_at < features.event_timestamp
            and events.occurred_at >= features.event_timestamp - interval '90 days'
    group by features.user_id, features.category, features.event_timestamp

)

select features.* from features
inner join counted using (user_id, category, event_timestamp)
where
    features.event_timestamp > {{ as_of() }}
    or features.user_category_events_1d != counted.events_1d
    or features.user_category_events_7d != counted.events_7d
    or features.user_category_events_30d != counted.events_30d
    or features.user_category_events_90d != counted.events_90d
    or features.user_category_implicit_90d != counted.implicit_90d
    or (features.user_category_recent_mean_rating is null) != (counted.mean_rating is null)
    or abs(features.user_category_recent_mean_rating - counted.mean_rating) > 1e-8
