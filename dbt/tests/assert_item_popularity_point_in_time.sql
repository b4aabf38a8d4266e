with

features as (

    {{ sampled_rows(ref('feat_item_popularity'), ['item_id'], stated_anew=true) }}

),

events as (

    {{ events_of_items() }}

),

counted as (

    select
        features.item_id,
        features.event_timestamp,
        coalesce(sum(events.interactions), 0) as interactions_total,
        coalesce(
            sum(events.interactions) filter (
                where events.occurred_at >= features.event_timestamp - interval '90 days'
            ), 0
        ) as interactions_90d,
        sum(events.rating_sum) / nullif(sum(events.rating_count), 0) as mean_rating

    from features
    left join events
        on
            features.item_id = events.item_id
            and events.occurred_at < features.event_timestamp
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
