with

features as (

    {{ sampled_rows(ref('feat_user_windows'), ['user_id'], stated_anew=true) }}

),

events as (

    select
        user_id,
        occurred_at,
        1 as interactions,
        rating as rating_sum,
        (rating is not null)::integer as rating_count

    from {{ ref('fct_interactions') }}
    where user_id in (select user_id from features)

),

counted as (

    {{ recounted_windows(['user_id'], of_entity='features.user_id = events.user_id') }}

)

select features.* from features
inner join counted using (user_id, event_timestamp)
where {{ windows_differ('user') }}
