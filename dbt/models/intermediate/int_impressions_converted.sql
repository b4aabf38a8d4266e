with

impressions as (

    select * from {{ ref('fct_impressions') }}
    where is_clicked

),

interactions as (

    select * from {{ ref('fct_interactions') }}
    where event_type in ('purchase', 'rate', 'share')

)

select
    impressions.event_id,
    min(interactions.occurred_at) as converted_at

from impressions
inner join interactions
    on
        impressions.user_id = interactions.user_id
        and impressions.item_id = interactions.item_id
        and interactions.occurred_at >= impressions.clicked_at
        and interactions.occurred_at < impressions.clicked_at + interval '7 days'
group by impressions.event_id
