-- Each feature row of a fixed sample equals what the events strictly before its instant give when counted
-- one by one; so no row covers an event at or after its event_timestamp, and none misses one before it.
with

features as (

    select * from {{ ref('feat_item_popularity') }}
    where {{ if_changed('item_id') }}
    order by hashtextextended(item_id, extract(epoch from event_timestamp)::bigint), item_id, event_timestamp
    limit 500

),

interactions as (

    select * from {{ ref('fct_interactions') }}
    where item_id in (select item_id from features)

),

counted as (

    select
        features.item_id,
        features.event_timestamp,
        count(interactions.event_id) as interactions_total,
        count(interactions.event_id) filter (
            where interactions.occurred_at >= features.event_timestamp - interval '90 days'
        ) as interactions_90d,
        avg(interactions.rating) as mean_rating

    from features
    left join interactions
        on
            features.item_id = interactions.item_id
            and interactions.occurred_at < features.event_timestamp
    group by features.item_id, features.event_timestamp

)

select features.* from features
inner join counted using (item_id, event_timestamp)
where
    features.event_timestamp > {{ as_of() }}
    or features.item_interactions_total != counted.interactions_total
    or features.item_interactions_90d != counted.interactions_90d
    or (features.item_mean_rating is null) != (counted.mean_rating is null)
    or abs(features.item_mean_rating - counted.mean_rating) > 1e-9
