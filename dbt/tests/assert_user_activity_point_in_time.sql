with

features as (

    {{ sampled_rows(ref('feat_user_activity'), ['user_id']) }}

),

interactions as (

    select * from {{ ref('fct_interactions') }}
    where user_id in (select user_id from features)

),

counted as (

    select
        features.user_id,
        features.event_timestamp,
        count(interactions.event_id) as interactions_total,
        count(interactions.event_id) filter (
            where interactions.occurred_at >= features.event_timestamp - interval '30 days'
        ) as interactions_30d,
        count(distinct interactions.item_id) as distinct_items,
        avg(interactions.rating) as mean_rating

    from features
    left join interactions
        on
            features.user_id = interactions.user_id
            and interactions.occurred_at < features.event_timestamp
    group by features.user_id, features.event_timestamp

)

select features.* from features
inner join counted using (user_id, event_timestamp)
where
    features.event_timestamp > {{ as_of() }}
    or features.user_interactions_total != counted.interactions_total
    or features.user_interactions_30d != counted.interactions_30d
    or features.user_distinct_items != counted.distinct_items
    or (features.user_mean_rating is null) != (counted.mean_rating is null)
    or abs(features.user_mean_rating - counted.mean_rating) > 1e-9
